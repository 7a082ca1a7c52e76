"""Downloads through a real proxy on loopback, and with certificates of the environment."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

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
from cacheapp.downloads.http.proxies import Proxies
from cacheapp.downloads.http.url_policy import UrlPolicy
from cacheapp.downloads.storage.partial import PartialName
from tests.objects import Thing, Version
from tests.origin import Origin, body
from tests.proxy import Proxy

JOB = "0123456789ab"
VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


Fetch = Callable[..., FetchedFile]


@pytest.fixture
def fetch(tmp_path: Path) -> Iterator[Fetch]:
    used: list[urllib3.PoolManager] = []

    def run(url: str, policy: UrlPolicy | None = None, name: str = "name") -> FetchedFile:
        if not used:
            used.append(connections.pool_manager(2, Proxies.from_environment()))
        what = TransferOptions(url, tmp_path / name, PartialName(tmp_path, JOB, 0, 1))
        transfer = Transfer(what, policy or UrlPolicy(None), TransferLimits(10**7))
        return transfer.run(used[0], Buffer())

    yield run
    for pools in used:
        pools.clear()


def _named(origin: Origin, name: str = "files.example") -> str:
    """Return the origin under a name that only the proxy resolves."""
    return origin.url.replace("127.0.0.1", name).replace("localhost", name)


def test_http_goes_through_the_proxy_with_its_whole_url(
    origin: Origin, fetch: Fetch, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    with Proxy("user:pass") as proxy:
        environment.setenv("HTTP_PROXY", proxy.url)
        url = f"{_named(origin)}/file/a?bytes=300000"
        assert fetch(url).size == 300_000
        assert proxy.requests == [("GET", url)]
    assert (tmp_path / "name").read_bytes() == body({"bytes": "300000"})


def test_https_goes_through_a_tunnel_in_which_the_name_is_verified(
    fetch: Fetch, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    environment.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    connections.forget_tls()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("files.example").configure_cert(context)
    with Proxy("user:pass") as proxy, Origin(context) as origin:
        environment.setenv("https_proxy", proxy.url)
        for name in "ab":  # one tunnel for both
            assert fetch(f"{_named(origin)}/file/{name}", name=name).size == 1000
        port = origin.url.rpartition(":")[2]
        assert proxy.requests == [("CONNECT", f"files.example:{port}")]
        with pytest.raises(TransferFailed, match="TLS failed"):
            fetch(f"{_named(origin, 'other.example')}/file/c", name="c")
        assert [path for _, path in origin.asked] == ["/file/a", "/file/b"]
    connections.forget_tls()


def test_a_host_in_no_proxy_is_requested_directly_and_its_address_checked(
    origin: Origin, fetch: Fetch, environment: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        environment.setenv("http_proxy", proxy.url)
        environment.setenv("NO_PROXY", "internal.example,127.0.0.1")
        with pytest.raises(TransferFailed, match="is loopback"):
            fetch(f"{origin.url}/file/a")
        fetch(f"{origin.url}/file/a", UrlPolicy(None, read_networks(["127.0.0.0/8"])))
        assert proxy.requests == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "169.254.169.254"]
)
def test_a_host_that_is_written_as_an_address_is_checked_before_the_proxy(
    host: str, fetch: Fetch, environment: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        environment.setenv("http_proxy", proxy.url)
        with pytest.raises(TransferFailed, match="see DOWNLOAD_NETWORKS"):
            fetch(f"http://{host}:9/x")
        assert proxy.requests == []


def test_redirects_through_the_proxy_stay_within_the_allowed_origins(
    origin: Origin, fetch: Fetch, environment: pytest.MonkeyPatch
) -> None:
    port = origin.url.rpartition(":")[2]
    origin.things["away"] = Thing([], refusals=["302 Found\r\nLocation: http://evil.example/x"])
    with Proxy() as proxy:
        environment.setenv("http_proxy", proxy.url)
        policy = UrlPolicy(frozenset([f"http://files.example:{port}"]))
        with pytest.raises(TransferFailed, match=r"origin http://evil\.example:80 is not allowed"):
            fetch(f"{_named(origin)}/thing/away", policy)
        assert len(proxy.requests) == 1


@pytest.mark.parametrize(("status", "retryable"), [("403 Forbidden", False), ("503 Busy", True)])
def test_a_proxy_that_opens_no_tunnel_is_named(
    status: str, fetch: Fetch, environment: pytest.MonkeyPatch, *, retryable: bool
) -> None:
    with Proxy(refuses=status) as proxy:
        environment.setenv("https_proxy", proxy.url)
        with pytest.raises(TransferFailed, match=f"the proxy opened no tunnel.*{status}") as caught:
            fetch("https://files.example/x")
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_down_is_named(
    scheme: str, fetch: Fetch, environment: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        pass
    environment.setenv(f"{scheme}_proxy", proxy.url)
    with pytest.raises(TransferFailed, match=r"no connection to the proxy: .*refused") as caught:
        fetch(f"{scheme}://files.example/x")
    assert caught.value.retryable


@pytest.mark.parametrize("value", ["socks5://u:secret@h:1", "https://h:1", "http://h:x", "http://"])
def test_a_variable_that_is_no_http_proxy_is_refused_without_its_value(
    value: str, fetch: Fetch, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("http_proxy", value)
    with pytest.raises(TransferFailed) as caught:
        fetch("http://files.example/x")
    assert str(caught.value) == (
        "HTTP_PROXY is not the URL of an HTTP proxy; expected http://host:port"
    )


def test_a_bundle_that_cannot_be_read_is_named(
    fetch: Fetch, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    connections.forget_tls()
    with pytest.raises(TransferFailed, match=r"AWS_CA_BUNDLE is /nowhere/ca\.pem: No such file"):
        fetch("https://127.0.0.1:9/x", UrlPolicy(None, read_networks(["127.0.0.0/8"])))
    connections.forget_tls()


def test_without_the_plans_permission_no_proxy_is_used(
    origin: Origin, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    origin.things["x"] = Thing([Version(b"found", '"v"')])
    pools = connections.pool_manager(1)
    with Proxy() as proxy:
        environment.setenv("http_proxy", proxy.url)
        what = TransferOptions(
            f"{origin.url}/thing/x", tmp_path / "x", PartialName(tmp_path, JOB, 0, 1)
        )
        policy = UrlPolicy(None, read_networks(["127.0.0.0/8"]))
        Transfer(what, policy, TransferLimits(10**7)).run(pools, Buffer())
        assert proxy.requests == []
    pools.clear()
