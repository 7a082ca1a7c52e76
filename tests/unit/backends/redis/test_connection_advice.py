"""What a user is told about a connection that fails; test_tls.py has what real servers do."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from cryptography.hazmat.primitives import serialization

from cacheapp.backends import RedisCache
from cacheapp.backends.redis.cache import pool_of
from cacheapp.backends.redis.connection_advice import (
    is_refusal,
    on_connection,
    on_refusal,
    tls_mistakes,
)
from cacheapp.backends.redis.options import OPTIONS


def pool(url: str, **arguments: Any) -> Any:
    options = {name: option.default for name, option in OPTIONS.items()}
    return pool_of(url, {**options, "CONNECTION_POOL_KWARGS": arguments})


def failed(cause: BaseException) -> redis.ConnectionError:
    """Return the error that redis-py makes of another one."""
    try:
        try:
            raise cause
        except type(cause) as exc:
            raise redis.ConnectionError(f"Error connecting. {exc}.")  # noqa: B904 (as redis-py)
    except redis.ConnectionError as exc:
        return exc


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate with its key."""
    path = tmp_path_factory.mktemp("tls") / "client.pem"
    trustme.CA().issue_cert("client").private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        (tls_error("WRONG_VERSION_NUMBER"), "nothing speaks TLS at this port"),
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "set ssl_certfile and ssl_keyfile"),
        (ssl.SSLEOFError(8, "EOF occurred"), "set ssl_certfile and ssl_keyfile"),
        (ConnectionResetError(104, "reset by peer"), "set ssl_certfile and ssl_keyfile"),
    ],
    ids=["no TLS", "alert", "end", "reset"],
)
def test_a_server_that_ends_tls_is_explained(cause: OSError, advice: str) -> None:
    error = failed(cause)
    assert advice in on_connection(error, pool("rediss://a:1"))
    assert is_refusal(error)


def test_a_refused_certificate_of_the_client_is_named(certificate: str) -> None:
    error = failed(tls_error("TLSV1_ALERT_UNKNOWN_CA"))
    known = pool("rediss://a:1", ssl_certfile=certificate)
    assert on_connection(error, known) == (
        f"; the server may not accept the certificate in ssl_certfile, {certificate!r}"
    )


@pytest.mark.parametrize(
    "error",
    [
        failed(ConnectionRefusedError(111, "refused")),
        redis.TimeoutError("Timeout connecting to server"),
    ],
    ids=["refused", "late"],
)
def test_of_a_server_that_is_down_there_is_nothing_to_say(error: redis.RedisError) -> None:
    assert on_connection(error, pool("redis://a:1")) == ""
    assert on_connection(error, pool("rediss://a:1")) == ""
    assert not is_refusal(error)


def test_a_socket_file_has_no_tls() -> None:
    error = redis.ConnectionError("Connection closed by server.")
    assert "'rediss://'" in on_connection(error, pool("redis://a:1"))
    assert on_connection(error, pool("unix:///run/redis.sock")) == ""


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("this user has no permissions to run the 'cluster|slots' command", "+cluster|slots"),
        ("User app has no permissions to run the 'get' command", "+get"),
        ("this user has no permissions to access one of the keys used as arguments", "~*"),
        ("No permissions to access a key", "~*"),
        ("this user has no permissions to access one of the channels", "&cacheapp:lease:*"),
    ],
)
def test_a_missing_right_is_given_by_a_rule(text: str, advice: str) -> None:
    assert on_refusal(text) == f"; give the user {advice}, on every node of a cluster"
    assert on_refusal("OOM command not allowed") == ""


def test_files_of_tls_that_can_be_used_are_no_mistakes(certificate: str, tmp_path: Path) -> None:
    files = {"ssl_certfile": certificate, "ssl_ca_certs": certificate, "ssl_ca_path": str(tmp_path)}
    assert tls_mistakes(files) == []
    assert tls_mistakes({}) == []


def test_each_file_of_tls_that_cannot_be_used_is_named(certificate: str, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    files = {"ssl_ca_certs": str(text), "ssl_certfile": certificate, "ssl_keyfile": "/nowhere"}
    first, second = tls_mistakes(files)
    assert first.startswith(f"ssl_ca_certs is {str(text)!r}, which cannot be used: ")
    assert second == "ssl_keyfile is '/nowhere', which cannot be used: No such file or directory"


def test_an_encrypted_key_needs_its_password_in_the_options(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("client")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    (tmp_path / "client.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"s3cr3t"),
        )
    )
    files = {
        "ssl_certfile": str(tmp_path / "client.pem"),
        "ssl_keyfile": str(tmp_path / "client.key"),
    }
    (found,) = tls_mistakes(files)
    assert "cannot be used" in found
    assert tls_mistakes({**files, "ssl_password": "s3cr3t"}) == []


def test_arguments_that_no_connection_has_are_refused_before_the_first_call() -> None:
    for location in ("redis://a:1/0", "redis+cluster://a:1"):
        wrong = {"OPTIONS": {"CONNECTION_POOL_KWARGS": {"ssl_ca_certs": "ca.pem"}}}
        (found,) = RedisCache.mistakes(location, wrong)
        assert found.startswith(
            "'ssl_ca_certs' applies only to TLS; expected a LOCATION with 'rediss"
        )
    (found,) = RedisCache.mistakes("redis://a:1/0?no_such=1", {})
    assert "no argument 'no_such'" in found
