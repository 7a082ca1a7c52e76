"""Responses that are unusual but usable, and errors that another attempt would not change."""

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
import urllib3

from cacheapp.downloads.engine.transfer import Transfer
from cacheapp.downloads.engine.transfer_options import (
    Buffer,
    FetchedFile,
    TransferLimits,
    TransferOptions,
)
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.http.url_policy import UrlPolicy
from cacheapp.downloads.storage.checksums import Checksum
from cacheapp.downloads.storage.partial import PartialName
from tests.origin import Origin, body

WHOLE = body({"bytes": "300000"})
SHA256 = Checksum("sha256", hashlib.sha256(WHOLE).digest(), "the request")
WRONG = Checksum("sha256", bytes(32), "the request")
LIMITS = TransferLimits(10**7)
UNVERIFIED = TransferLimits(10**7, digest=False)
POLICY = UrlPolicy(None, read_networks(["127.0.0.0/8", "::1/128"]))


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    manager = connections.pool_manager(threads=1)
    yield manager
    manager.clear()


Fetch = Callable[..., FetchedFile]


@pytest.fixture
def fetch(client: urllib3.PoolManager, tmp_path: Path) -> Fetch:
    """Return a function that fetches a URL with some given checksums."""

    def run(url: str, *sums: Checksum, limits: TransferLimits = LIMITS) -> FetchedFile:
        partial = PartialName(tmp_path, "0123456789ab", 0, 1)
        options = TransferOptions(url, tmp_path / "name", partial, sums)
        return Transfer(options, POLICY, limits).run(client, Buffer())

    return run


@pytest.fixture
def failure(fetch: Fetch) -> Callable[..., tuple[str, bool]]:
    """Return a function that does the same, and returns the error and whether it is retried."""

    def run(url: str, *sums: Checksum, limits: TransferLimits = LIMITS) -> tuple[str, bool]:
        with pytest.raises(TransferFailed) as caught:
            fetch(url, *sums, limits=limits)
        return str(caught.value), caught.value.retryable

    return run


Failure = Callable[..., tuple[str, bool]]


def _raw(origin: Origin, head: str, size: int | None = None) -> str:
    text = head.replace("\n", "\r\n")
    return f"{origin.url}/raw/a?say={quote(text)}" + ("" if size is None else f"&bytes={size}")


def test_a_list_of_equal_lengths_is_one_length(origin: Origin, fetch: Fetch) -> None:
    url = _raw(origin, "HTTP/1.1 200 OK\nContent-Length: 1000, 1000\n\n", 1000)
    assert fetch(url).size == 1000


def test_a_list_of_different_lengths_is_refused(origin: Origin, failure: Failure) -> None:
    message, _ = failure(_raw(origin, "HTTP/1.1 200 OK\nContent-Length: 9, 1000\n\n", 1000))
    assert message == "has Content-Length ['9', '1000']; expected one number"


def test_a_body_that_ends_with_its_connection_is_accepted_with_a_given_digest(
    origin: Origin, fetch: Fetch, failure: Failure, tmp_path: Path
) -> None:
    url = _raw(origin, "HTTP/1.1 200 OK\n\n", 300_000)
    assert fetch(url, SHA256).size == 300_000
    assert (tmp_path / "name").read_bytes() == WHOLE
    message, again = failure(_raw(origin, "HTTP/1.1 200 OK\n\n", 299_999), SHA256)
    assert "from the request" in message
    assert again
    for sums, limits in (((), LIMITS), ((SHA256,), UNVERIFIED)):
        message, again = failure(url, *sums, limits=limits)
        assert message.startswith("has neither Content-Length nor chunks")
        assert not again


def test_without_digests_no_checksum_is_computed_or_verified(
    origin: Origin, fetch: Fetch, tmp_path: Path
) -> None:
    wrong = "Content-MD5: AAAAAAAAAAAAAAAAAAAAAA=="
    head = f"HTTP/1.1 200 OK\nContent-Length: 300000\n{wrong}\n\n"
    found = fetch(_raw(origin, head, 300_000), WRONG, limits=UNVERIFIED)
    assert found == FetchedFile(300_000, "")
    assert (tmp_path / "name").read_bytes() == WHOLE


def test_a_coding_that_was_not_requested_is_noted_at_the_file(origin: Origin, fetch: Fetch) -> None:
    head = "HTTP/1.1 200 OK\nContent-Length: 1000\nContent-Encoding: gzip\n\n"
    assert fetch(_raw(origin, head, 1000)).note == "stored with Content-Encoding gzip"


@pytest.mark.parametrize("framing", ["length", "none"])
def test_the_error_of_an_s3_service_is_shown(
    origin: Origin, failure: Failure, framing: str
) -> None:
    text = "<Message>The operation isn&apos;t valid for its storage class</Message>"
    xml = f"<?xml version='1.0'?><Error><Code>InvalidObjectState</Code>{text}</Error>"
    length = f"Content-Length: {len(xml)}\n" if framing == "length" else ""
    head = f"HTTP/1.1 403 Forbidden\nContent-Type: application/xml\n{length}\n"
    message, again = failure(_raw(origin, head + xml))
    assert message == (
        "responded with 403 Forbidden: InvalidObjectState: "
        "The operation isn't valid for its storage class"
    )
    assert not again


@pytest.mark.parametrize(
    "body_of_error",
    [
        pytest.param("<html>no", id="html"),
        pytest.param("<Error><Code>" + "x" * 2500, id="long"),
        pytest.param("", id="empty"),
    ],
)
def test_another_body_of_an_error_is_not_shown(
    origin: Origin, failure: Failure, body_of_error: str
) -> None:
    head = "HTTP/1.1 403 Forbidden\nContent-Type: text/xml\nContent-Length: 99999\n\n"
    assert failure(_raw(origin, head + body_of_error)) == ("responded with 403 Forbidden", False)


@pytest.mark.parametrize("status", [520, 521, 522, 523, 524])
def test_failures_between_a_cdn_and_its_origin_are_retried(
    origin: Origin, failure: Failure, status: int
) -> None:
    message, again = failure(f"{origin.url}/status/a?say={status}+Oops")
    assert (message, again) == (f"responded with {status} Oops", True)


@pytest.mark.parametrize(
    ("head", "message", "again"),
    [
        pytest.param(
            "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\1\0\0\0\5\0",
            "the response begins with",
            False,
            id="http2",
        ),
        pytest.param("SSH-2.0-x\n", "the response begins with", False, id="another-protocol"),
        pytest.param("HTTP/1.1 20x OK\n\n", "the response begins with", False, id="no-status"),
        pytest.param("HTTP/2 200 OK\n\n", "has the version HTTP/2", False, id="version-2"),
        pytest.param(
            "HTTP/1.1 200 OK\nno field\n\n", "the response head has", False, id="no-field"
        ),
        pytest.param("HTTP/1.1 2", "the response head is truncated", True, id="cut-in-the-status"),
        pytest.param(
            "HTTP/1.1 200 OK\nA: b\n", "the response head is truncated", True, id="cut-in-fields"
        ),
        pytest.param("", "RemoteDisconnected", True, id="nothing"),
    ],
)
def test_a_malformed_head_is_not_retried_and_a_truncated_one_is(
    origin: Origin, failure: Failure, head: str, message: str, *, again: bool
) -> None:
    found, is_retried = failure(_raw(origin, head))
    assert message in found
    assert is_retried is again


def test_a_server_without_tls_is_not_retried(failure: Failure) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond() -> None:
            with server.accept()[0] as connection:
                connection.recv(9999)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=respond)
        thread.start()
        message, again = failure(f"https://127.0.0.1:{server.getsockname()[1]}/a")
        thread.join()
    assert message.startswith("TLS failed: ")
    assert not again


def test_a_certificate_for_an_address_that_is_requested_by_another_one_is_not_retried(
    failure: Failure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    connections.forget_tls()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.2").configure_cert(context)
    with Origin(context) as other:
        message, again = failure(other.url.replace("localhost", "127.0.0.1") + "/file/a")
    connections.forget_tls()
    assert "TLS failed: " in message
    assert not again
