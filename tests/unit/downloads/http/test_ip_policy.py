import pytest

from cacheapp.downloads.http.ip_policy import read_networks, refusal_reason
from cacheapp.downloads.http.url_policy import UrlPolicy, UrlRefused


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("0.0.0.0", "this network"),  # noqa: S104 (that is what must be refused)
        ("10.1.2.3", "private"),
        ("100.64.0.1", "shared by a carrier (CGNAT)"),
        ("100.100.100.200", "a cloud's metadata service"),
        ("127.0.0.1", "loopback"),
        ("127.255.0.9", "loopback"),
        ("169.254.169.254", "a cloud's metadata service"),
        ("169.254.7.7", "link-local"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("192.0.0.8", "reserved"),
        ("198.18.0.1", "for benchmarks"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "site-local"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "a cloud's metadata service"),
        ("ff02::1", "multicast"),
        ("2001:db8::1", "documentation"),
        ("4000::1", "not public"),
        ("::ffff:127.0.0.1", "which leads to 127.0.0.1 is loopback"),
        ("::ffff:a9fe:a9fe", "which leads to 169.254.169.254 is a cloud's"),
        ("::127.0.0.1", "which leads to 127.0.0.1 is loopback"),
        ("64:ff9b::10.0.0.1", "which leads to 10.0.0.1 is private"),
        ("64:ff9b:1::1", "for address translation"),
        ("2002:7f00:1::", "which leads to 127.0.0.1 is loopback"),
        ("2001:0:c0a8:1::1", "which leads to 192.168.0.1 is private"),
        ("2a00:1::5efe:10.0.0.1", "which leads to 10.0.0.1 is private"),
    ],
)
def test_an_address_that_is_not_public_is_refused_with_the_reason(
    address: str, reason: str
) -> None:
    assert reason in (refusal_reason(address) or "allowed")


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"],
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert refusal_reason(address) is None


def test_a_network_that_a_setting_names_is_allowed_in_every_form() -> None:
    allowed = read_networks(["127.0.0.0/8", "fd00::/8"])
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "fd12::1", "64:ff9b::7f00:1"):
        assert refusal_reason(address, allowed) is None
    assert refusal_reason("10.0.0.1", allowed) is not None
    assert refusal_reason("169.254.169.254", allowed) is not None


def test_the_loopback_address_of_ipv6_is_an_address_of_its_own() -> None:
    loopback, unspecified = read_networks(["::1/128"]), read_networks(["::/128"])
    assert refusal_reason("::1", loopback) is None
    assert refusal_reason("::", unspecified) is None
    assert refusal_reason("::", loopback) == "address :: is unspecified"
    assert refusal_reason("::2", loopback) == "address ::2, which leads to 0.0.0.2 is this network"
    assert refusal_reason("::1", read_networks(["0.0.0.0/8"])) == "address ::1 is loopback"


def test_an_origin_that_names_its_place_may_be_there_and_no_other_may() -> None:
    guard = UrlPolicy(
        frozenset(["http://127.0.0.1:80", "http://localhost:81", "http://in.example:80"])
    )
    guard.check_address("127.0.0.1", 80, "127.0.0.1")
    guard.check_address("localhost", 81, "127.0.0.1")
    guard.check_address("in.example", 80, "1.1.1.1")
    for host, port in (("in.example", 80), ("localhost", 80), ("127.0.0.1", 81)):
        with pytest.raises(UrlRefused, match="is loopback; see DOWNLOAD_NETWORKS"):
            guard.check_address(host, port, "127.0.0.1")


def test_an_origin_that_the_operator_trusts_may_be_anywhere() -> None:
    guard = UrlPolicy(None, trusted=frozenset(["http://store.home:9000"]))
    guard.check_address("store.home", 9000, "192.168.1.2")
    with pytest.raises(UrlRefused, match="is private"):
        guard.check_address("store.home", 9001, "192.168.1.2")
