"""Hostile origins and full disks do no harm, and the error names the reason."""

import errno
import socket
import ssl
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import trustme
import urllib3

from cacheapp.downloads.engine.transfer import Transfer
from cacheapp.downloads.engine.transfer_options import (
    Buffer,
    Existing,
    FetchedFile,
    TransferLimits,
    TransferOptions,
)
from cacheapp.downloads.http import connections, resolver
from cacheapp.downloads.http.connections import Urllib3Replaced, reject_replacement
from cacheapp.downloads.http.errors import TransferFailed, translate_error
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.http.url_policy import UrlPolicy
from cacheapp.downloads.storage.partial import PartialName, publish
from tests.objects import Thing, Version
from tests.origin import Origin, body

LOOPBACK = read_networks(["127.0.0.0/8", "::1/128"])
JOB = "0123456789ab"
LIMITS = TransferLimits(10**7)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    manager = connections.pool_manager(threads=2)
    yield manager
    manager.clear()


QueuedFile = Callable[..., FetchedFile]


@pytest.fixture
def fetch(client: urllib3.PoolManager, tmp_path: Path) -> QueuedFile:
    def run(
        url: str, guard: UrlPolicy, limits: TransferLimits = LIMITS, **wanted: object
    ) -> FetchedFile:
        stem = PartialName(tmp_path, JOB, 0, 1)
        what = TransferOptions(url, tmp_path / "name", stem, **wanted)  # type: ignore[arg-type]
        return Transfer(what, guard, limits).run(client, Buffer())

    return run


@pytest.fixture
def refusal_reason(fetch: QueuedFile, tmp_path: Path) -> Callable[..., str]:
    def run(*args: object, **kwargs: object) -> str:
        with pytest.raises(TransferFailed) as caught:
            fetch(*args, **kwargs)
        assert not caught.value.retryable
        assert list(tmp_path.iterdir()) == []
        return str(caught.value)

    return run


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0x7f.1"])
def test_every_form_of_a_loopback_url_is_refused_before_anything_is_sent(
    host: str, origin: Origin, refusal_reason: Callable[..., str]
) -> None:
    before = origin.connections
    port = origin.url.rpartition(":")[2]
    message = refusal_reason(f"http://{host}:{port}/file/a", UrlPolicy(None))
    assert "is loopback; see DOWNLOAD_NETWORKS" in message
    assert origin.connections == before


def test_a_name_that_has_one_forbidden_address_among_its_own_is_refused(
    origin: Origin, refusal_reason: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(origin.url.rpartition(":")[2])
    found = [_resolved("127.0.0.1", port), _resolved("10.0.0.1", port)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    before = origin.connections
    message = refusal_reason(f"http://mixed.example:{port}/file/a", UrlPolicy(None, LOOPBACK))
    assert message.startswith("mixed.example: address 10.0.0.1 is private")
    assert origin.connections == before


def test_a_name_with_the_loopback_addresses_of_both_families_is_connected_to(
    origin: Origin,
    fetch: QueuedFile,
    refusal_reason: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As on Debian, whose /etc/hosts has `::1 localhost`; the origin has an IPv4 address only.
    port = int(origin.url.rpartition(":")[2])
    ipv6 = (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", port, 0, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [ipv6, _resolved("127.0.0.1", port)])
    url = f"http://both.example:{port}/file/a"
    message = refusal_reason(url, UrlPolicy(None, read_networks(["127.0.0.0/8"])))
    assert message.startswith("both.example: address ::1 is loopback")
    assert fetch(url, UrlPolicy(None, LOOPBACK)).size == 1000


def test_a_name_that_changes_between_two_lookups_gains_nothing(
    origin: Origin,
    fetch: QueuedFile,
    refusal_reason: Callable[..., str],
    client: urllib3.PoolManager,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = int(origin.url.rpartition(":")[2])
    responses = iter(["127.0.0.1", "10.0.0.1", "127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [_resolved(next(responses), port)])
    monkeypatch.setattr(resolver, "KEEP_S", 0.0)  # every connection resolves it again
    url, guard = f"http://moves.example:{port}/file/a", UrlPolicy(None, LOOPBACK)
    # one lookup: the request went to the address that was checked
    assert fetch(url, guard).size == 1000
    (tmp_path / "name").unlink()
    client.clear()
    assert refusal_reason(url, guard).startswith("moves.example: address 10.0.0.1 is private")
    assert next(responses) == "127.0.0.1"


def _resolved(parsed: str, port: int) -> tuple[object, ...]:
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (parsed, port))


def test_a_network_that_is_allowed_is_connected_to(origin: Origin, fetch: QueuedFile) -> None:
    assert fetch(f"{origin.url}/file/a", UrlPolicy(None, LOOPBACK)).size == 1000


@pytest.mark.parametrize("trusted", [False, True], ids=["listed", "trusted"])
def test_an_origin_that_is_named_by_an_ipv6_address_may_be_there(
    origin: Origin, fetch: QueuedFile, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    port = int(origin.url.rpartition(":")[2])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [_resolved("127.0.0.1", port)])
    host = "[fd00::1]" if trusted else "[::1]"  # not every machine has IPv6
    named = frozenset([f"http://{host}:{port}"])
    guard = UrlPolicy(None, trusted=named) if trusted else UrlPolicy(named)
    assert fetch(f"http://{host}:{port}/file/a", guard).size == 1000


def test_an_ipv6_address_that_is_not_named_is_refused(
    origin: Origin, refusal_reason: Callable[..., str]
) -> None:
    message = refusal_reason("http://[fd00::2]:9/file/a", UrlPolicy(None))
    assert message.startswith("[fd00::2]: address fd00::2 is private")


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data/", "a cloud's metadata service"),
        ("http://[::ffff:10.0.0.1]/", "which leads to 10.0.0.1 is private"),
        ("http://[::ffff:a9fe:a9fe]/", "which leads to 169.254.169.254"),
        ("http://[64:ff9b::a00:1]/", "which leads to 10.0.0.1 is private"),
        ("http://0/", "this network"),
        ("//192.168.0.1/x", "is private"),
        ("file:///etc/passwd", "scheme is 'file'"),
        ("gopher://127.0.0.1/", "scheme is 'gopher'"),
        ("http://user:secret@127.0.0.1/", "has a user name or password"),
        ("http://[::1", "which is not a URL"),
        ("http://127.0.0.1:0/", "port is 0"),
    ],
)
def test_a_hostile_redirect_is_refused_with_the_reason(
    location: str, reason: str, origin: Origin, refusal_reason: Callable[..., str]
) -> None:
    origin.things["redirects"] = Thing([], refusals=[f"302 Found\r\nLocation: {location}"])
    assert reason in refusal_reason(f"{origin.url}/thing/redirects", UrlPolicy(None, LOOPBACK))


def test_credentials_go_to_their_own_origin_only(origin: Origin, fetch: QueuedFile) -> None:
    def sign(_url: str) -> Mapping[str, str]:
        return {"Authorization": "secret"}

    with Origin() as other:
        other.things["x"] = Thing([Version(b"found", '"v"')])
        elsewhere = f"302 Found\r\nLocation: {other.url}/thing/x"
        here = "302 Found\r\nLocation: /thing/second"
        origin.things["first"] = Thing([], refusals=[here])
        origin.things["second"] = Thing([], refusals=[elsewhere])
        fetch(f"{origin.url}/thing/first", UrlPolicy(None, LOOPBACK), sign=sign)
        for name in ("first", "second"):
            assert origin.things[name].asked[0]["authorization"] == "secret"
        assert "authorization" not in other.things["x"].asked[0]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("HTTP/1.1 100 Continue\r\n", id="continue-for-ever"),
        pytest.param("HTTP/1.1 200 OK\r\nX: " + "x" * 60_000, id="long-lines"),
        pytest.param("HTTP/1.1 200 OK\r\nX: " + "x" * 70_000, id="a-longer-line"),
        pytest.param("x", id="many-short-lines"),
    ],
)
def test_a_response_with_an_endless_head_is_aborted(
    line: str, origin: Origin, fetch: QueuedFile, tmp_path: Path
) -> None:
    with pytest.raises(TransferFailed):
        fetch(
            f"{origin.url}/endless-head/a?line={line}".replace(" ", "+").replace("\r\n", "%0D%0A"),
            UrlPolicy(None, LOOPBACK),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_name_suggested_by_the_origin_is_ignored(
    origin: Origin, fetch: QueuedFile, tmp_path: Path
) -> None:
    headers = {
        "Content-Disposition": 'attachment; filename="../../evil"',
        "Content-Encoding": "gzip",
    }
    origin.things["named"] = Thing([Version(b"bytes", '"v"', headers=headers)])
    fetch(f"{origin.url}/thing/named", UrlPolicy(None, LOOPBACK))
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


@pytest.mark.parametrize(
    "module",
    [
        types.SimpleNamespace(__version__="2.12.900", ResponsePromise=object),
        types.SimpleNamespace(__version__="2.12.900", AsyncPoolManager=object),
    ],
)
def test_a_replaced_urllib3_is_refused(module: object) -> None:
    with pytest.raises(Urllib3Replaced, match=r"urllib3 2\.12\.900 is urllib3-future"):
        reject_replacement(module)


def test_the_real_urllib3_is_not_taken_for_another() -> None:
    reject_replacement(urllib3)


def test_a_file_without_enough_disk_space_does_not_begin(
    origin: Origin, refusal_reason: Callable[..., str]
) -> None:
    limits = TransferLimits(10**7, min_free_bytes=10**18)
    message = refusal_reason(f"{origin.url}/file/a", UrlPolicy(None, LOOPBACK), limits)
    assert message.startswith("needs 1000 bytes; the disk has ")
    assert message.endswith(", of which 1000000000000000000 must stay free")


def test_a_full_disk_is_reported_and_not_retried() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.fail("no /dev/full: the test needs Linux")
    assert (
        str(translate_error(OSError(errno.ENOSPC, "No space left on device"))) == "the disk is full"
    )
    assert not translate_error(OSError(errno.ENOSPC, "No space left on device")).retryable
    assert not translate_error(OSError(errno.EDQUOT, "Quota exceeded")).retryable
    with full.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space") as caught:
        file.write(b"x")
    assert str(translate_error(caught.value)) == "the disk is full"


def test_existing_files_are_replaced_only_on_request(
    origin: Origin, fetch: QueuedFile, tmp_path: Path
) -> None:
    (tmp_path / "name").write_text("mine")
    url, guard = f"{origin.url}/file/a", UrlPolicy(None, LOOPBACK)
    with pytest.raises(TransferFailed, match="already exists"):
        fetch(url, guard)
    assert (tmp_path / "name").read_text() == "mine"
    fetch(url, guard, TransferLimits(10**7, existing=Existing.REPLACE, fsync=True))
    assert (tmp_path / "name").read_bytes() == body({})


def test_a_folder_that_is_a_file_is_an_error_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    (tmp_path / "part").write_text("x")
    with pytest.raises(TransferFailed, match="a folder of its path already exists as a file"):
        publish(tmp_path / "part", tmp_path / "a" / "b" / "c")


@pytest.fixture
def authority(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[trustme.CA]:
    ca = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    connections.forget_tls()
    yield ca
    connections.forget_tls()


def _server_side(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


def test_over_tls_the_name_is_verified_and_the_address_checked(
    authority: trustme.CA, tmp_path: Path
) -> None:
    url = ""
    with Origin(_server_side(authority, "localhost")) as origin:
        url = f"{origin.url}/file/a?bytes=300000"
        client = connections.pool_manager(threads=1)
        what = TransferOptions(url, tmp_path / "name", PartialName(tmp_path, JOB, 0, 1))
        with pytest.raises(TransferFailed, match="is loopback"):
            Transfer(what, UrlPolicy(None), TransferLimits(10**7)).run(client, Buffer())
        fetched = Transfer(what, UrlPolicy(None, LOOPBACK), TransferLimits(10**7)).run(
            client, Buffer()
        )
        assert fetched.size == 300_000
        client.clear()
    assert (tmp_path / "name").read_bytes() == body({"bytes": "300000"})


def test_what_tls_has_decrypted_beyond_a_body_does_not_reach_the_next_file(
    authority: trustme.CA, tmp_path: Path
) -> None:
    with Origin(_server_side(authority, "localhost")) as origin:
        client = connections.pool_manager(threads=1)
        # More than the reader's own buffer: the rest of the record stays in the TLS layer.
        for name, path in [("a", "/more/a?bytes=9000"), ("b", "/file/b")]:
            what = TransferOptions(
                origin.url + path, tmp_path / name, PartialName(tmp_path, JOB, 0, 1)
            )
            Transfer(what, UrlPolicy(None, LOOPBACK), TransferLimits(10**7)).run(client, Buffer())
        assert origin.connections == 2
        client.clear()
    assert (tmp_path / "a").read_bytes() == body({"bytes": "9000"})
    assert (tmp_path / "b").read_bytes() == body({})


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_an_invalid_certificate_is_refused(
    authority: trustme.CA, tmp_path: Path, wrong: str
) -> None:
    issuer = authority if wrong == "name" else trustme.CA()
    with Origin(
        _server_side(issuer, "other.example" if wrong == "name" else "localhost")
    ) as origin:
        client = connections.pool_manager(threads=1)
        what = TransferOptions(
            f"{origin.url}/file/a", tmp_path / "name", PartialName(tmp_path, JOB, 0, 1)
        )
        with pytest.raises(TransferFailed, match="TLS failed") as caught:
            Transfer(what, UrlPolicy(None, LOOPBACK), TransferLimits(10**7)).run(client, Buffer())
        assert not caught.value.retryable
        client.clear()
    assert list(tmp_path.iterdir()) == []
