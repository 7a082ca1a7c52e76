from typing import Any

import pytest

from cacheapp.backends import NearCache, RedisCache
from cacheapp.backends.redis.cluster.client import address_of, url_of
from cacheapp.backends.redis.cluster.location import read_nodes
from cacheapp.errors import OptionsRefused

SECRET = "s3cr3t"  # noqa: S105
URL = f"redis+cluster://app:{SECRET}@one:7000,two:7001"


def refused(location: Any = URL, prefix: str = "", **options: Any) -> str:
    cache = RedisCache(location, {"KEY_PREFIX": prefix, "OPTIONS": options})
    with pytest.raises(OptionsRefused) as caught:
        cache.get("key")
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        "redis+cluster://app:pw@one:7000,two:7001?protocol=3",
        ["redis+cluster://app:pw@one:7000?protocol=3", "redis://app:pw@two:7001/0?protocol=3"],
        "redis://app:pw@one:7000?protocol=3,redis://app:pw@two:7001/?protocol=3",
    ],
    ids=["one URL", "list", "URLs with commas"],
)
def test_every_form_of_a_location_names_the_same_nodes(location: Any) -> None:
    assert read_nodes(location) == (
        "redis://app:pw@one:7000/0?protocol=3",
        "redis://app:pw@two:7001/0?protocol=3",
    )


def test_tls_and_ipv6_stay_what_they_are() -> None:
    (first, second) = read_nodes("rediss+cluster://[::1]:7000,two:7001")
    assert address_of(first) == ("::1", 7000)
    assert url_of("::2", 7002, like=second) == "rediss://[::2]:7002/0"
    assert url_of("a", 1, like="redis://u:p@b:2/0?x=1@2") == "redis://u:p@a:1/0?x=1@2"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("redis+cluster://", "expected 'redis+cluster://host:port"),
        ("redis+cluster://one:7000,", "expected 'redis+cluster://host:port"),
        ("redis+cluster://one:70000x", "expected a URL"),
        ("redis+cluster://one:7000/3", "only database 0"),
        ("redis+cluster://one:7000?db=3", "only database 0"),
        (["redis+cluster://one:7000", "rediss://two:7000"], "with and without TLS"),
        (["redis+cluster://one:7000", None], "contains a NoneType"),
        (["redis+cluster://one:7000", "unix:///run/redis.sock"], "expected 'redis+cluster"),
        ("redis+cluster://one:7000?retry_on_timeout=1", "may have run"),
    ],
    ids=repr,
)
def test_a_wrong_location_is_refused(location: Any, message: str) -> None:
    assert message in refused(location)


def test_all_mistakes_are_reported_at_once() -> None:
    message = refused(f"{URL}/7", "a{b}", SENTINELS=[("a", 1)], cluster=False, no_such=1)
    for part in ("only database 0", "KEY_PREFIX is 'a{b}'", "SENTINELS", "is False", "no_such"):
        assert part in message


@pytest.mark.parametrize(
    "options",
    [
        {"SENTINELS": [("host", 1)]},
        {"CLIENT_CLASS": "django_redis.client.SentinelClient"},
        {"REDIS_CLIENT_KWARGS": {"x": 1}},
        {"reads_django_redis": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_only_one_server_can_have_is_refused(options: dict[str, Any]) -> None:
    assert f"OPTIONS[{next(iter(options))!r}] does not apply to a cluster" in refused(**options)


def test_a_near_cache_has_the_mistakes_of_a_cluster_and_its_own() -> None:
    cache = NearCache("redis+cluster://one:7000/3", {"OPTIONS": {}})
    with pytest.raises(OptionsRefused, match=r"only database 0.*OPTIONS\['copy'\] is missing"):
        cache.get("key")


def test_nothing_shows_a_password() -> None:
    cache = RedisCache(URL, {"OPTIONS": {"PASSWORD": SECRET}})
    for shown in (repr(cache), repr(cache._store), repr(cache._store.client)):  # noqa: SLF001
        assert SECRET not in shown
