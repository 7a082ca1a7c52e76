"""RedisCache and NearCache on a cluster with TLS, users and names: what docs/howto/redis.md shows works.

What cannot work is one error, which names what was found and what to do, and no secret.
"""

import logging
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from cacheapp.backends import NearCache, RedisCache
from cacheapp.backends.redis.listener import wait_until_done
from cacheapp.checks.caches import check_access, check_entries, check_servers, check_tracking
from cacheapp.errors import StoreUnavailable
from cacheapp.processes.redis_cluster import ClusterServer
from cacheapp.processes.waiting import until
from tests.contract.backends import PATIENT
from tests.integration.backends.near.parts import confirmed, until_copied
from tests.integration.backends.redis.cluster.parts import (
    another,
    is_woken,
    slot_of,
    topology_of,
)
from tests.integration.backends.redis.cluster.tls import (
    NAME,
    SECRET,
    TLSCluster,
    documented_entry,
)

NAMES = [f"key{number}" for number in range(30)]
Entry = dict[str, Any]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TLSCluster]:
    with TLSCluster(tmp_path_factory.mktemp("certificates")) as cluster:
        yield cluster.start()


def test_the_server_itself_speaks_tls(cluster: TLSCluster) -> None:
    if not cluster.binary:
        pytest.skip(
            "no server here is built with TLS; a gateway took its place. Install one (Debian's "
            "redis-server), or name one in REDIS_SERVER or REDIS_SERVERS"
        )
    for node in cluster.nodes:
        with node.client() as client:
            assert client.config_get("port") == {"port": "0"}


def _another_timeout() -> int:
    """Return an option for a store of one's own: another prefix is not enough."""
    return 60 + uuid.uuid4().int % 10_000


@pytest.fixture
def entry(cluster: TLSCluster) -> Entry:
    """The entry of the page, with the addresses and files of the test."""
    found = documented_entry()
    options = {**PATIENT, **found["OPTIONS"], "max_connections": 8}
    options["CONNECTION_POOL_KWARGS"] = {
        name: cluster.certificates.moved(path)
        for name, path in options["CONNECTION_POOL_KWARGS"].items()
    }
    named = ",".join(f"{NAME}:{node.port}" for node in cluster.nodes[:2])
    options["pool_timeout"] = _another_timeout()
    return {
        "BACKEND": found["BACKEND"],
        "LOCATION": found["LOCATION"].partition("://")[0] + f"://{named}",
        "KEY_PREFIX": f"test-{uuid.uuid4().hex[:8]}",
        "OPTIONS": options,
    }


def with_files(entry: Entry, **files: Any) -> Entry:
    """Return the entry with other files of TLS."""
    kwargs = {**entry["OPTIONS"]["CONNECTION_POOL_KWARGS"], **files}
    kept = {name: path for name, path in kwargs.items() if path is not None}
    return {**entry, "OPTIONS": {**entry["OPTIONS"], "CONNECTION_POOL_KWARGS": kept}}


def built(entry: Entry) -> RedisCache:
    params = {"KEY_PREFIX": entry["KEY_PREFIX"], "OPTIONS": entry["OPTIONS"]}
    return RedisCache(entry["LOCATION"], params)


@pytest.fixture
def near(entry: Entry, tmp_path: Path) -> Iterator[NearCache]:
    made = {"copy": str(tmp_path / "copy"), "size_limit": 8 * 2**20, "max_staleness": 2.0}
    params = {"KEY_PREFIX": entry["KEY_PREFIX"], "OPTIONS": {**entry["OPTIONS"], **made}}
    cache = NearCache(entry["LOCATION"], params)
    yield cache
    cache._store.close()  # noqa: SLF001 (its listener would follow the cluster to its end)


def wakes_another_wait(cache: RedisCache) -> None:
    """What is published at any node ends a wait.

    The nodes lose a message while they still connect to each other, in the first moments of a cluster.
    """
    with cache._store._listener.subscribe(b"cacheapp:lease:test") as wait:  # noqa: SLF001
        assert wait.confirmed.result(60)

        def is_notified() -> bool:
            topology_of(cache).primaries()[0].execute(b"PUBLISH", b"cacheapp:lease:test", b"")
            return wait_until_done(wait.notified, 1)

        until(is_notified, "the message")


@pytest.mark.parametrize("required", [True, False], ids=["certificate", "no certificate"])
def test_all_that_a_cache_does_works_with_the_options_and_the_rights_of_the_page(
    cluster: TLSCluster, entry: Entry, *, required: bool
) -> None:
    if not required:
        entry = with_files(entry, ssl_certfile=None, ssl_keyfile=None)
        cluster.require_client_certificates(required=False)
    try:
        cache = built(entry)
        assert cache.set_many(dict.fromkeys(NAMES, 1)) == []
        assert cache.get_many(NAMES) == dict.fromkeys(NAMES, 1)
        assert cache.incr("key0") == 2
        assert cache.get_or_set("new", lambda: "value") == "value"
        assert cache.incr_version("key1") == 2
        assert len(cache.keys("*")) == 30
        until(lambda: is_woken(cache), "the listener to listen", 60)
        wakes_another_wait(cache)
        with cache.lock("lock", timeout=100) as lock:
            assert lock.token
        cache.clear()
        assert cache.keys("*") == []
        nodes = topology_of(cache).primaries()
        assert [node.host for node in nodes] == [NAME] * 3
    finally:
        cluster.require_client_certificates(required=True)


def test_the_client_of_redis_py_has_the_same_user_and_files(entry: Entry) -> None:
    # It connects to an address instead of the name `localhost`, for which no certificate is valid here.
    cache = built(with_files(entry, ssl_check_hostname=False))
    assert cache.sadd("set", 1) == 1  # type: ignore[attr-defined]
    assert cache.client.get_client().ping(target_nodes="all")


def test_a_slot_that_moves_is_followed_to_a_name(cluster: TLSCluster, entry: Entry) -> None:
    cache = built(entry)
    cache.set("count", 1)
    slot = slot_of(cache, "count")
    target = another(cluster, cluster.owner(slot))
    cluster.move(slot, target)
    assert cache.incr("count") == 2
    owner = topology_of(cache).owner(slot)
    assert (owner.host, owner.port) == (NAME, target.port)


def test_a_primary_that_hands_over_is_followed(cluster: TLSCluster, entry: Entry) -> None:
    cache = built(entry)
    cache.set_many(dict.fromkeys(NAMES, 1))
    for primary in cluster.primaries():
        cluster.fail_over(primary)
    assert cache.get_many(NAMES) == dict.fromkeys(NAMES, 1)
    assert [cache.incr(name) for name in NAMES] == [2] * 30


def is_followed(node: ClusterServer) -> bool:
    """Return True if the user of the page has a connection to the node, that tracks if it is a primary."""
    with node.client() as client:
        ours = [each for each in client.client_list() if each["user"] == "mysite"]
    return bool(ours) and any("t" in each["flags"] for each in ours) == node.is_primary()


def test_a_near_cache_listens_at_every_node(
    cluster: TLSCluster, entry: Entry, near: NearCache
) -> None:
    machine = built(entry)
    confirmed(near)
    assert near.tracking_refusal() == ""
    for node in cluster.nodes:
        until(lambda node=node: near.get("key0") or is_followed(node), "a connection to each")  # type: ignore[misc]
    machine.set_many(dict.fromkeys(NAMES, "old"))
    until_copied(near, lambda: near.get_many(NAMES))
    for name in NAMES:
        machine.set(name, "new")
        until(lambda name=name: near.get(name) == "new", "the write of another machine")  # type: ignore[misc]
    epoch = near.stats()["copy_epoch"]
    cluster.fail_over(cluster.owner(slot_of(near, "key0")))
    until(lambda: near.get("key0") and near.stats()["copy_epoch"] > epoch, "another epoch", 60)
    machine.set("key0", "newest")
    until(lambda: near.get("key0") == "newest", "the write at the new primary")


# -- what cannot work --------------------------------------------------------------------------------

Change = Callable[[TLSCluster, Entry], Entry]


def _with_options(entry: Entry, **options: Any) -> Entry:
    changed = {**entry["OPTIONS"], **options}
    kept = {name: value for name, value in changed.items() if value is not None}
    return {**entry, "OPTIONS": kept}


MISTAKES: dict[str, tuple[Change, str]] = {
    "authority": (
        lambda cluster, entry: with_files(
            entry, ssl_ca_certs=cluster.certificates.path("another.pem")
        ),
        r"certificate verify failed.*; ssl_ca_certs in OPTIONS.* must be a file with the auth.*another.pem'",
    ),
    "no authority": (
        lambda _cluster, entry: with_files(entry, ssl_ca_certs=None),
        r"certificate verify failed.*; ssl_ca_certs .*; it is None",
    ),
    "name": (
        lambda _cluster, entry: {**entry, "LOCATION": entry["LOCATION"].replace(NAME, "127.0.0.1")},
        r"certificate is not valid for '127.0.0.1'.*; LOCATION must name the server as its certificate",
    ),
    "no client certificate": (
        lambda _cluster, entry: with_files(entry, ssl_certfile=None, ssl_keyfile=None),
        r"a server that requires a certificate of the client does this: set ssl_certfile and ssl_keyfile",
    ),
    "no TLS": (
        lambda _cluster, entry: with_files(
            {**entry, "LOCATION": entry["LOCATION"].replace("rediss", "redis")},
            **dict.fromkeys(entry["OPTIONS"]["CONNECTION_POOL_KWARGS"]),
        ),
        r"if the server expects TLS, LOCATION must begin with 'rediss://', or 'rediss\+cluster://'",
    ),
    "missing file": (
        lambda _cluster, entry: with_files(entry, ssl_keyfile="/nowhere/client.key"),
        r"ssl_keyfile is '/nowhere/client.key', which cannot be used: No such file",
    ),
    "password": (
        lambda _cluster, entry: _with_options(entry, PASSWORD=f"{SECRET}-wrong"),
        r"check the user and the password.*; every node of a cluster has users of its own",
    ),
    "no password": (
        lambda _cluster, entry: _with_options(entry, PASSWORD=None, USERNAME=None),
        r"give the password, and the user if there is one, in LOCATION or in OPTIONS",
    ),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_error_that_says_what_to_do(
    cluster: TLSCluster,
    entry: Entry,
    mistake: str,
    caplog: pytest.LogCaptureFixture,
    settings: Settings,
) -> None:
    change, message = MISTAKES[mistake]
    wrong = change(cluster, entry)
    cache = built(wrong)
    for call in (lambda: cache.get("key"), lambda: cache.set_many({"key": 1})):
        with pytest.raises(StoreUnavailable, match=message) as caught:
            call()
        assert "nothing was sent" in str(caught.value)
        assert SECRET not in str(caught.value) + caplog.text
    settings.CACHES = {"default": wrong}
    found = check_access()
    if mistake != "missing file":  # that is reported without a connection
        assert [each.id for each in found] == ["cacheapp.W023"]
    assert SECRET not in str(found)


def test_a_certificate_that_has_expired_is_an_error_that_says_so(
    cluster: TLSCluster, entry: Entry
) -> None:
    with (
        cluster.showing("expired"),
        pytest.raises(
            StoreUnavailable, match=r"has expired.*; renew the certificate of the server"
        ),
    ):
        built(entry).get("key")
    cache = built(entry)
    cache.set("key", 1)
    assert cache.get("key") == 1


@pytest.mark.parametrize("right", ["cluster|slots", "get"])
def test_a_missing_right_is_named_with_what_gives_it(
    cluster: TLSCluster, entry: Entry, right: str, settings: Settings
) -> None:
    settings.CACHES = {"default": entry}
    assert check_access() == []
    cluster.grant(f"-{right}")
    another_store = _with_options(entry, pool_timeout=_another_timeout())
    settings.CACHES = {"default": another_store}
    try:
        with pytest.raises(StoreUnavailable) as caught:
            built(another_store).get("key")
        assert f"run the '{right}' command" in str(caught.value)
        assert f"give the user +{right}, on every node" in str(caught.value)
        (found,) = check_access()
        assert f"+{right}" in found.msg
    finally:
        cluster.grant()


def test_waits_without_the_right_to_their_channel_poll_and_warn(
    cluster: TLSCluster,
    entry: Entry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cacheapp.backends.redis.listener._refused", LogEverything())
    cluster.grant("resetchannels")
    try:
        cache = built(entry)
        with caplog.at_level(logging.WARNING):
            advice = "give the user &cacheapp:lease:*"
            # A wait that ends before the listener has sent anything is refused nothing.
            until(lambda: is_woken(cache) or advice in caplog.text, "the warning")
            assert advice in caplog.text
        assert cache.get_or_set("key", lambda: "value") == "value"
    finally:
        cluster.grant()


@pytest.mark.parametrize(
    "right",
    [
        "client|tracking",
        pytest.param("cluster|nodes", marks=pytest.mark.soak),
        pytest.param("cluster|info", marks=pytest.mark.soak),
    ],
)
def test_a_near_cache_without_a_right_is_a_plain_cache_and_warns(
    cluster: TLSCluster,
    entry: Entry,
    near: NearCache,
    right: str,
    caplog: pytest.LogCaptureFixture,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cacheapp.backends.near.listener._unsupported", LogEverything())
    cluster.grant(f"-{right}")
    try:
        near.set("key", 1)
        with caplog.at_level(logging.WARNING):
            until(
                lambda: near.get("key") == 1 and "does not track keys" in caplog.text,
                "the warning",
                60,
            )
        assert f"give the user +{right}, on every node" in caplog.text
        assert SECRET not in caplog.text
        assert near.stats()["copy_hits"] == 0
        made = {"copy": near.options["copy"], "size_limit": 8 * 2**20}
        wrong = {**_with_options(entry, **made), "BACKEND": "cacheapp.backends.NearCache"}
        settings.CACHES = {"default": wrong}
        (found,) = check_tracking()
        assert right in found.msg
    finally:
        cluster.grant()


class LogEverything:
    """In place of the throttle: an earlier test may have logged the same."""

    def due(self) -> int:
        """Return that no message was left out."""
        return 0


@pytest.mark.parametrize(
    ("change", "number", "message"),
    [
        (
            lambda entry: {**entry, "LOCATION": "redis+cluster://node:6379"},
            "cacheapp.E002",
            "'ssl_ca_certs' applies only to TLS; expected a LOCATION with 'rediss+cluster://'",
        ),
        (
            lambda entry: with_files(entry, ssl_cacert="ca.pem"),
            "cacheapp.E002",
            "redis-py's connections have no argument 'ssl_cacert'",
        ),
        (
            lambda entry: with_files(entry, ssl_cert_reqs="always"),
            "cacheapp.E002",
            "Invalid SSL Certificate Requirements Flag: always",
        ),
        (
            lambda entry: with_files(entry, ssl_ca_certs="/nowhere/ca.pem"),
            "cacheapp.W022",
            "ssl_ca_certs is '/nowhere/ca.pem', which cannot be used: No such file or directory",
        ),
        (
            lambda entry: with_files(
                entry,
                ssl_certfile=entry["OPTIONS"]["CONNECTION_POOL_KWARGS"]["ssl_ca_certs"],
            ),
            "cacheapp.W022",
            "cannot be used: [X509: KEY_VALUES_MISMATCH]",
        ),
    ],
    ids=["TLS without TLS", "argument", "value", "missing file", "another key"],
)
def test_what_can_be_known_to_be_wrong_is_found_without_a_connection(
    entry: Entry, settings: Settings, change: Callable[[Entry], Entry], number: str, message: str
) -> None:
    settings.CACHES = {"default": entry}
    assert check_entries() + check_servers() == []
    settings.CACHES = {"default": change(entry)}
    (found,) = check_entries() + check_servers()
    assert found.id == number
    assert message in found.msg
    assert SECRET not in str(found)
