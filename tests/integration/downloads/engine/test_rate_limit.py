"""Jobs under a rate limit, measured at the origin."""

import contextlib
import dataclasses
import socket
import socketserver
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheapp import clock
from cacheapp.downloads.engine.rate_limit import process_limits
from cacheapp.downloads.engine.run import JobRun, QueuedFile
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.plan import Item, Plan
from cacheapp.downloads.states import FileState
from cacheapp.processes.waiting import until
from tests.integration.downloads.engine.part_jobs import LIMITS, V1, WHOLE, PartsJob
from tests.objects import Thing
from tests.origin import Origin

SIZE = 3_000_000
PIECE = 8 * 1024
IN_FLIGHT = 64 * 1024
"""What each connection may have read, or moved from one end to the other, between two looks."""


class _Request(socketserver.BaseRequestHandler):
    server: "MeteredOrigin"

    def handle(self) -> None:
        self.server.serve(self.request)


class MeteredOrigin(socketserver.ThreadingTCPServer):
    """Sends `SIZE` bytes for each request, and counts them.

    A thread for each connection, as the buffers of an event loop would count as sent.
    """

    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.sent: list[int] = []  # appending is atomic
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, connection: socket.socket) -> None:
        """Answer one request."""
        if not connection.recv(65536):  # a run that was stopped has connected, and sent nothing
            return
        fields = f'ETag: "v"\r\nConnection: close\r\nContent-Length: {SIZE}'
        with contextlib.suppress(OSError):  # the client has disconnected
            connection.sendall(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode())
            for _ in range(SIZE // PIECE):
                connection.sendall(bytes(PIECE))
                self.sent.append(PIECE)
            connection.sendall(bytes(SIZE % PIECE))

    def received(self) -> int:
        """Return how many bytes clients have read: what was sent, without what the kernel holds."""
        sent = sum(self.sent)
        port = self.server_address[1]
        held = 0
        for row in Path("/proc/self/net/tcp").read_text("ascii").splitlines()[1:]:
            _, here, there, _, queues = row.split()[:5]
            unacknowledged, unread = (int(size, 16) for size in queues.split(":"))
            if int(here.split(":")[1], 16) == port:
                held += unacknowledged
            elif int(there.split(":")[1], 16) == port:
                held += unread
        return sent - held


@pytest.fixture
def origin() -> Iterator[MeteredOrigin]:
    with MeteredOrigin() as found:
        thread = threading.Thread(target=found.serve_forever, args=[0.05])
        thread.start()
        yield found
        found.shutdown()
        thread.join()


NewRun = Callable[..., JobRun]


@pytest.fixture
def new_run(origin: MeteredOrigin, tmp_path: Path) -> Iterator[NewRun]:
    runs = []

    def make(
        name: str, files: int = 1, rate: int | None = None, limits: TransferLimits | None = None
    ) -> JobRun:
        items = tuple(Item(n, n, f"{origin.url}/{name}/{n}", f"{n}") for n in range(files))
        place = tmp_path / name
        allowed = frozenset([origin.url])
        plan = Plan(uuid.uuid4(), place, files, allowed, items, max_rate=rate)
        pool: ThreadPool[QueuedFile] = ThreadPool(files)
        run = JobRun(plan, limits or TransferLimits(10**9), lambda: None, pool)
        runs.append(run)
        run.start()
        return run

    yield make
    for run in runs:
        run.stop("the test is over")
        assert run.join(30)
        run.clean()


def _is_within(origin: MeteredOrigin, began_s: float, rate: int, connections: int) -> bool:
    """Compare what was received until now with the limit."""
    total = origin.received()
    took_s = clock.monotonic_s() - began_s
    assert total <= rate * (took_s + 0.2) + connections * IN_FLIGHT, f"{total} in {took_s:.2f} s"
    return True


def _done(run: JobRun) -> bool:
    return run.ended and run.changes()[1].files_failed == 0


def test_a_job_fetches_no_faster_than_its_limit(origin: MeteredOrigin, new_run: NewRun) -> None:
    began_s = clock.monotonic_s()
    run = new_run("a", rate=1_000_000)
    until(
        lambda: _is_within(origin, began_s, 1_000_000, 1) and _done(run),
        "the file's last byte",
        100,
    )
    assert clock.monotonic_s() - began_s >= 2.8
    assert sum(origin.sent) >= SIZE - PIECE


def test_jobs_of_equal_threads_share_the_limit_of_their_process_equally(
    origin: MeteredOrigin, new_run: NewRun, tmp_path: Path
) -> None:
    throttle = process_limits(tmp_path / "state" / "downloads.rate", 2_000_000, 3_000_000)
    limits = TransferLimits(10**9, throttle=throttle)
    began_s = clock.monotonic_s()
    one, other = (new_run(name, files=3, limits=limits) for name in ("one", "other"))

    def received() -> list[int]:
        return [run.changes()[1].bytes_done for run in (one, other)]

    def has_received() -> bool:
        return _is_within(origin, began_s, 2_000_000, 6) and sum(received()) > 9_000_000

    until(has_received, "half of the bytes", 100)
    least, most = sorted(received())
    assert least > 0.7 * most


def test_a_stop_wakes_threads_that_wait_for_their_turn(new_run: NewRun) -> None:
    run = new_run("a", files=16, rate=1024)  # 4 s for each turn
    until(lambda: run.changes()[1].bytes_done > 0, "the first turn")
    run.stop("paused", FileState.QUEUED, keep=True)
    assert run.join(60)


def test_the_time_that_a_limit_takes_is_no_stall(new_run: NewRun) -> None:
    limits = TransferLimits(10**9, stall_s=3.0, stall_bytes=16 * 1024)
    run = new_run("a", rate=4096, limits=limits)  # 4 s for what counts as progress

    def moved() -> bool:
        run.enforce_limits()
        return run.ended or run.changes()[1].bytes_done >= 20 * 1024

    until(moved, "more bytes than count as progress", 100)
    assert run.retries_made == 0
    assert not run.ended


def test_the_parts_of_a_large_file_share_its_limit(tmp_path: Path) -> None:
    rate = 2_000_000
    throttle = process_limits(tmp_path / "downloads.rate", None, rate)
    limits = dataclasses.replace(LIMITS, throttle=throttle)
    with Origin() as origin:
        origin.things["x"] = thing = Thing([V1])
        began_s = clock.monotonic_s()
        found = PartsJob(origin, tmp_path / "job").run(limits=limits)
        took_s = clock.monotonic_s() - began_s
    assert found.state is FileState.SUCCEEDED
    assert (tmp_path / "job" / "x").read_bytes() == WHOLE
    assert took_s >= len(WHOLE) / rate - 0.2
    assert len(thing.asked) >= 4  # in parts
