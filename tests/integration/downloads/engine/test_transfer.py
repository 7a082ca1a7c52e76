"""One file from a real origin that may misbehave: it arrives complete, or not at all."""

import hashlib
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from cacheapp.downloads.engine.transfer import Transfer
from cacheapp.downloads.engine.transfer_options import (
    Buffer,
    FetchedFile,
    TransferLimits,
    TransferOptions,
)
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.errors import TransferAborted, TransferFailed
from cacheapp.downloads.http.url_policy import UrlPolicy
from cacheapp.downloads.storage.partial import PartialName
from cacheapp.processes.waiting import until
from tests.origin import Origin, body

LIMITS = TransferLimits(max_bytes=10 * 2**20, connect_s=10, read_s=30)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    manager = connections.pool_manager(threads=2)
    yield manager
    manager.clear()


JOB = "0123456789ab"
NewTransfer = Callable[..., Transfer]


def _transfer(
    url: str, directory: Path, limits: TransferLimits, *origins: str, name: str = "name"
) -> Transfer:
    wanted = TransferOptions(url, directory / name, PartialName(directory, JOB, 0, 1))
    return Transfer(wanted, UrlPolicy(frozenset([url[: url.index("/", 8)], *origins])), limits)


@pytest.fixture
def new(origin: Origin, tmp_path: Path) -> NewTransfer:
    def make(path: str, limits: TransferLimits = LIMITS, *origins: str) -> Transfer:
        return _transfer(origin.url + path, tmp_path, limits, *origins)

    return make


@pytest.fixture
def failure(
    origin: Origin, client: urllib3.PoolManager, new: NewTransfer, tmp_path: Path
) -> Callable[..., str]:
    """Return a function that fetches a file that must fail, and returns the message."""

    def fetch(path: str, limits: TransferLimits = LIMITS) -> str:
        with pytest.raises(TransferFailed) as caught:
            new(path, limits).run(client, Buffer())
        assert list(tmp_path.iterdir()) == []
        return str(caught.value)

    return fetch


@pytest.mark.parametrize("size", [0, 1, 2**18 - 1, 2**18, 2**18 + 1, 3 * 2**20], ids=str)
@pytest.mark.parametrize("kind", ["file", "once", "chunked"])
def test_a_file_arrives_whole_under_its_name_alone(
    kind: str,
    size: int,
    origin: Origin,
    client: urllib3.PoolManager,
    new: NewTransfer,
    tmp_path: Path,
) -> None:
    if kind == "chunked" and size < 2:
        size = 2  # an empty chunk would end it
    transfer = new(f"/{kind}/a?bytes={size}")
    digest = hashlib.sha256(body({"bytes": str(size)})).hexdigest()
    assert transfer.run(client, Buffer()) == FetchedFile(size, digest)
    assert transfer.bytes_done == size
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert (tmp_path / "name").read_bytes() == body({"bytes": str(size)})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/cut/a?bytes=100000", "ended after 50000 of 100000 bytes"),
        ("/chunked/a?cut=1", "ended in the middle of its chunks"),
        ("/chunked/a?end=0", "ended in the middle of its chunks"),  # possibly of 0005
        ("/chunked/a?end=0%0D", "ended in the middle of its chunks"),
        ("/chunked/a?end=0%0D%0A", "ended in the middle of its chunks"),
        ("/chunked/a?end=0%0D%0AX-A:+b%0D%0A", "ended in the middle of its chunks"),
        ("/chunked/a?end=-0%0D%0A%0D%0A", "a chunk's size is b'-0"),
        (
            "/unframed/a",
            "has neither Content-Length nor chunks: a truncated body would go unnoticed",
        ),
        ("/lengths/a?say=2000", "ended after 1000 of 2000 bytes"),
        (
            "/lengths/a?say=1000,2000",
            "has Content-Length ['1000', '2000']; expected one number",
        ),
        ("/lengths/a?say=-5", "has Content-Length ['-5']; expected one number"),
        ("/lengths/a?say=x", "has Content-Length ['x']; expected one number"),
        ("/lengths/a?say=99999999999", "has 99999999999 bytes; expected at most 10485760"),
        ("/status/a?say=404+Not+Found", "responded with 404 Not Found"),
        ("/status/a?say=500+Oh%00%1B%5B31mno", "responded with 500 Oh??[31mno"),
        ("/status/a?say=204+No+Content", "responded with 204 No Content"),
        ("/status/a?say=206+Partial+Content", "responded with 206 Partial Content"),
        ("/status/a?say=302+Found", "responded with 302 Found"),
        ("/status/a?say=999", "responded with 999"),
        ("/redirect/a?to=/status/b%3Fsay=410%2BGone", "responded with 410 Gone"),
    ],
)
def test_a_bad_response_fails_with_the_reason_and_leaves_nothing(
    path: str, message: str, failure: Callable[..., str]
) -> None:
    assert message in failure(path)


def test_more_than_announced_is_cut_and_does_not_reach_the_next_file(
    origin: Origin, client: urllib3.PoolManager, new: NewTransfer, tmp_path: Path
) -> None:
    before = origin.connections
    assert new("/more/a").run(client, Buffer()).size == 1000
    (tmp_path / "name").unlink()
    assert new("/file/b?n=7").run(client, Buffer()).size == 1000
    assert origin.connections == before + 2  # a connection with surplus data is not reused
    assert (tmp_path / "name").read_bytes() == body({"n": "7"})


def test_a_chunked_file_that_grows_too_long_is_ended(failure: Callable[..., str]) -> None:
    message = failure("/chunked/a?bytes=500000", TransferLimits(max_bytes=300_000))
    assert message == "has more bytes; expected at most 300000"


def test_redirects_are_followed_to_allowed_origins_only(
    origin: Origin,
    client: urllib3.PoolManager,
    new: NewTransfer,
    failure: Callable[..., str],
    tmp_path: Path,
) -> None:
    with Origin() as other:
        path = f"/redirect/a?to={other.url}/file/b"
        assert f"redirected to '{other.url}/file/b': origin {other.url} is not" in failure(path)
        assert other.asked == []  # refused before anything was sent
        new(path, LIMITS, other.url).run(client, Buffer())
        assert (tmp_path / "name").read_bytes() == body({})
        assert other.asked == [("GET", "/file/b")]


def test_redirects_that_lead_in_circles_end(origin: Origin, failure: Callable[..., str]) -> None:
    before = len(origin.asked)
    assert failure("/circle/a") == "redirected more than 5 times"
    assert len(origin.asked) - before == 6


def test_an_existing_file_is_not_replaced(
    origin: Origin, client: urllib3.PoolManager, new: NewTransfer, tmp_path: Path
) -> None:
    (tmp_path / "name").write_text("mine")
    with pytest.raises(TransferFailed, match="name already exists; it was not replaced"):
        new("/file/a").run(client, Buffer())
    assert (tmp_path / "name").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_partial_file_of_another_transfer_is_not_written_to(
    origin: Origin, client: urllib3.PoolManager, new: NewTransfer, tmp_path: Path
) -> None:
    partial = PartialName(tmp_path, JOB, 0, 1).path(1000, None)
    partial.write_text("another's")
    with pytest.raises(TransferFailed, match="File exists"):
        new("/file/a").run(client, Buffer())
    assert partial.read_text() == "another's"


def test_no_compression_is_requested_and_nothing_is_decompressed(
    client: urllib3.PoolManager, tmp_path: Path
) -> None:
    with Origin() as origin:
        url = f"{origin.url}/file/a?header=Content-Encoding:+gzip"
        _transfer(url, tmp_path, LIMITS).run(client, Buffer())
        assert origin.accept_encodings == {"identity"}
        assert [method for method, _ in origin.asked] == ["GET"]
    assert (tmp_path / "name").read_bytes() == body({})


def test_a_connection_is_reused_and_a_closed_one_is_replaced(
    client: urllib3.PoolManager, tmp_path: Path
) -> None:
    with Origin() as origin:
        for path in ["/file/a", "/file/b", "/flaky/c", "/flaky/d"]:
            _transfer(origin.url + path, tmp_path, LIMITS, name=path[-1]).run(client, Buffer())
        assert origin.connections == 2
        assert [path for _, path in origin.asked] == [
            *("/file/a", "/file/b", "/flaky/c", "/flaky/d", "/flaky/d"),
        ]


def test_silence_ends_a_transfer(failure: Callable[..., str]) -> None:
    limits = TransferLimits(max_bytes=10**6, read_s=0.2)
    assert failure("/hang/a", limits) == "no data arrived before the timeout"
    assert failure("/hang-in-body/a", limits) == "no data arrived before the timeout"


def test_an_unreachable_origin_is_one_clear_error(
    client: urllib3.PoolManager, tmp_path: Path
) -> None:
    with Origin() as gone:
        url = f"{gone.url}/file/a"
    with pytest.raises(TransferFailed, match="no connection: Connection refused"):
        _transfer(url, tmp_path, LIMITS).run(client, Buffer())


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/hang/a", id="before-the-answer"),
        pytest.param("/hang-in-body/a?bytes=100000", id="in-the-body"),
        pytest.param("/hang-in-body/a?bytes=100000&close=1", id="in-the-body-of-a-last-answer"),
        pytest.param("/trickle/a?bytes=100000", id="while-it-trickles"),
    ],
)
def test_an_abort_wakes_a_thread_that_waits_for_bytes(
    path: str, origin: Origin, client: urllib3.PoolManager, new: NewTransfer, tmp_path: Path
) -> None:
    transfer = new(path, TransferLimits(max_bytes=10**6, connect_s=60, read_s=3600, stall_s=3600))
    caught: list[BaseException] = []

    def run() -> None:
        try:
            transfer.run(client, Buffer())
        except TransferAborted as exc:
            caught.append(exc)

    before = len(origin.asked)
    thread = threading.Thread(target=run)
    thread.start()
    if path.startswith("/hang/"):
        until(lambda: len(origin.asked) > before, "the request to arrive")
    else:
        until(lambda: list(tmp_path.iterdir()), "the partial file")
    transfer.abort("enough")
    thread.join(60)  # far below the timeouts of an hour
    assert not thread.is_alive()
    assert [str(exc) for exc in caught] == ["enough"]
    assert list(tmp_path.iterdir()) == []


def test_an_abort_before_the_start_sends_nothing(
    origin: Origin, client: urllib3.PoolManager, new: NewTransfer
) -> None:
    transfer = new("/file/a")
    transfer.abort("too early")
    before = len(origin.asked)
    with pytest.raises(TransferAborted, match="too early"):
        transfer.run(client, Buffer())
    assert len(origin.asked) == before


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    failure: Callable[..., str],
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        assert failure("/file/a?bytes=1000000") == "OSError: File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_process_has_one_tls_context_that_verifies() -> None:
    def context() -> Any:
        borrowed = connections.borrow(
            connections.pool_manager(1), "files.example.com", 443, "https"
        )
        return getattr(borrowed.connection, "ssl_context")  # noqa: B009 (of TLS alone)

    first = context()
    assert context() is first
    assert first.verify_mode.name == "CERT_REQUIRED"
    assert first.check_hostname
