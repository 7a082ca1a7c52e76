"""What happens on the site while it is scraped: visitors, downloads, a Redis that fails, a killed worker."""

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from cacheapp import clock
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import pause

ALIASES = ("default", "disk", "redis", "near")
_VISITORS = 6
_PRODUCTS = 5000
_FAVOURITES = 0.8  # how unequal: few products have most visits
_PAUSE_S = 0.02


@contextlib.contextmanager
def visitors(url: str) -> Iterator[None]:
    """Visit pages of all aliases, from several threads, while the block runs."""
    over = threading.Event()
    threads = [
        threading.Thread(target=_visit, args=(url, number, over)) for number in range(_VISITORS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def _visit(url: str, seed: int, over: threading.Event) -> None:
    chosen = random.Random(seed)
    connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=60)
    while not over.wait(_PAUSE_S):
        number = min(_PRODUCTS, int(chosen.paretovariate(_FAVOURITES) * 3))
        alias = ALIASES[chosen.randrange(len(ALIASES))]
        try:
            connection.request("GET", f"/shop/{alias}/{number}")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):  # its worker was killed
            connection.close()
    connection.close()


def happen(seconds: float, url: str, redis: RedisServer, origin: str) -> None:
    """Let things happen, at these parts of the time."""
    began_s = clock.monotonic_s()

    def wait_for(part: float) -> None:
        pause(max(0.0, began_s + part * seconds - clock.monotonic_s()))

    wait_for(0.15)
    _download(url, [f"{origin}/file/a-{n}?bytes=300000&delay_ms=900" for n in range(900)])
    wait_for(0.25)
    bad = [f"{origin}/status/{n}?say=404+Not+Found" for n in range(6)]
    slow = [f"{origin}/status/{n}?say=503+Service+Unavailable" for n in range(6, 9)]
    good = [f"{origin}/file/b-{n}?bytes=90000&delay_ms=600" for n in range(700)]
    _download(url, [*bad, *slow, *good])
    wait_for(0.4)
    redis.kill()
    wait_for(0.55)
    redis.start()
    wait_for(0.65)
    for pid in _workers_with_jobs(url):
        os.kill(pid, signal.SIGKILL)
    wait_for(1)


def _workers_with_jobs(url: str) -> set[int]:
    with urllib.request.urlopen(f"{url}/api/downloads", timeout=60) as response:  # noqa: S310
        return {job["owner_pid"] for job in json.load(response)["jobs"] if job["owner_pid"]}


def _download(url: str, urls: Sequence[str]) -> None:
    order: Any = json.dumps({"urls": urls, "threads": 8}).encode()
    request = urllib.request.Request(  # noqa: S310 (our own server)
        f"{url}/api/downloads", order, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 (the same)
        response.read()
