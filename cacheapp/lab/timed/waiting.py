"""Downloads one by one, by threads, by processes and by asyncio."""

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
from urllib.request import urlopen

from cacheapp import clock

Download = Callable[[str], int]


def download(url: str) -> int:
    """Fetch a file; return its size."""
    with urlopen(url, timeout=60) as response:  # noqa: S310 (of our own server)
        return len(response.read())


def one_by_one(download: Download, files: list[str]) -> list[int]:
    """Wait for each file before requesting the next."""
    return [download(file) for file in files]


def by_threads(download: Download, files: list[str]) -> list[int]:
    """Give each file a thread."""
    with ThreadPoolExecutor(len(files)) as pool:
        return list(pool.map(download, files))


def by_processes(download: Download, files: list[str]) -> list[int]:
    """Give each file a process."""
    with multiprocessing.get_context("fork").Pool(len(files)) as pool:
        return pool.map(download, files, chunksize=1)


def by_asyncio(urls: list[str]) -> list[int]:
    """Let one thread wait for all files at once."""

    async def together() -> list[int]:
        return await asyncio.gather(*map(_download, urls))

    return asyncio.run(together())


async def _download(url: str) -> int:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    target = f"{parts.path}?{parts.query}"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    body = await reader.readexactly(size)
    writer.close()
    return len(body)


WAYS: dict[str, Callable[[Download, list[str]], list[int]]] = {
    "one by one": one_by_one,
    "threads": by_threads,
    "processes": by_processes,
    "asyncio": lambda _download, urls: by_asyncio(urls),
}


def seconds(way: str, urls: list[str], size: int) -> float:
    """Return how long it takes to fetch all files completely."""
    return stopwatch(way, download, urls, size)


def stopwatch(way: str, download: Download, files: list[str], size: int) -> float:
    """Return how long it takes; raise `ValueError` for an incomplete file."""
    began_s = clock.monotonic_s()
    sizes = WAYS[way](download, files)
    took_s = clock.monotonic_s() - began_s
    if sizes != [size] * len(files):
        raise ValueError(f"{way}: the files had {sorted(set(sizes))} bytes; expected {size}")
    return took_s
