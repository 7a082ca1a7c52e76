"""An origin for benchmarks: any number of bytes after any delay, sent by `sendfile` without TLS.

`/files/<bytes>/<delay_ms>/<count>/<name>` is a file of zeros (`?rate=`: bytes per second, on Linux,
for the whole connection); `/files?list-type=2&prefix=…` lists `count` of them like S3, a thousand
per page. It prints its address, and ends when its standard input is closed.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import sys
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_PAGE = 1000
_MAX_PACING_RATE = 47  # Linux's SO_MAX_PACING_RATE, which Python does not define
_RANGE = re.compile(r"^range: *bytes=(\d+)-(\d*)\r?$", re.IGNORECASE | re.MULTILINE)
_BLOCK = bytes(256 * 1024)


def _listing(query: dict[str, list[str]]) -> bytes:
    prefix = query["prefix"][0]
    size, _, count, _ = prefix.split("/")
    first = int(query.get("continuation-token", ["0"])[0])
    end = min(int(count), first + _PAGE)
    rows = "".join(
        f"<Contents><Key>{prefix}{n}.bin</Key><Size>{size}</Size><ETag>&quot;v{count}/{n}&quot;</ETag>"
        "<LastModified>2026-11-22T10:00:00.000Z</LastModified></Contents>"
        for n in range(first, end)
    )
    more = end < int(count)
    token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
    space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult {space}><Name>files</Name>'
        f"<Prefix>{prefix}</Prefix><KeyCount>{end - first}</KeyCount><MaxKeys>{_PAGE}</MaxKeys>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>"
    ).encode()


def _span(head: str, size: int) -> tuple[int, int, str]:
    """Return the first byte, the end, and the status line with `Content-Range`, for a request."""
    found = _RANGE.search(head)
    if found is None:
        return 0, size, "200 OK"
    first, end = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    return first, end, f"206 Partial Content\r\nContent-Range: bytes {first}-{end - 1}/{size}"


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, zeros: Path) -> None:
    tls = writer.get_extra_info("ssl_object") is not None
    loop = asyncio.get_running_loop()
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        parts = urlsplit(target)
        if parts.path.count("/") < 3:  # noqa: PLR2004 (that of a listing)
            query = parse_qs(parts.query)
            found = _listing(query) if "prefix" in query else b"<LocationConstraint/>"
            kind = "application/xml"
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(found)}\r\n\r\n".encode()
                + (b"" if method == "HEAD" else found)
            )
            continue
        _, _, size, delay_ms, name = parts.path.split("/", 4)
        await asyncio.sleep(int(delay_ms) / 1000)
        first, end, status = _span(head, int(size))
        left = end - first
        tag = f'ETag: "v{name.partition(".")[0]}"\r\nAccept-Ranges: bytes'
        writer.write(f"HTTP/1.1 {status}\r\n{tag}\r\nContent-Length: {left}\r\n\r\n".encode())
        if method == "HEAD":
            continue
        if "rate" in (query := parse_qs(parts.query)):
            # The kernel paces packet by packet, as on a slow network; the server itself would send
            # bursts.
            rate = struct.pack("@Q", int(query["rate"][0]))
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, _MAX_PACING_RATE, rate)
        if left <= len(_BLOCK):
            writer.write(_BLOCK[:left])
            left = 0
        while left and tls:
            writer.write(_BLOCK[:left])
            left -= min(left, len(_BLOCK))
            await writer.drain()
        if left:
            await writer.drain()
            with zeros.open("rb") as file:
                await loop.sendfile(writer.transport, file, 0, left)


async def _serve(certificate: str | None) -> None:
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with tempfile.TemporaryDirectory() as directory:
        zeros = Path(directory) / "zeros"
        with zeros.open("wb") as file:
            file.truncate(2**31)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await _talk(reader, writer, zeros)
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=1024, ssl=context)
        port = server.sockets[0].getsockname()[1]
        print(f"https://localhost:{port}" if context else f"http://127.0.0.1:{port}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1] if len(sys.argv) > 1 else None))
