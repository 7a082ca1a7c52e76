"""`RedisCache.client` and django-redis's collections: the keys of this alias and no others."""

import asyncio
import pickle
from ipaddress import IPv4Address
from typing import Any

import pytest
from django.core.cache import caches
from django_redis import get_redis_connection
from pytest_django.fixtures import Settings

from cacheapp.backends.core.extended_api import COLLECTION_METHODS
from cacheapp.errors import OutcomeUnknown, StoreUnavailable
from cacheapp.processes.servers import RedisServer
from tests.contract.backends import PATIENT


def _entry(backend: str, server: RedisServer) -> dict[str, Any]:
    entry = {"BACKEND": backend, "LOCATION": server.url, "KEY_PREFIX": "shop", "VERSION": 3}
    return {**entry, "TIMEOUT": 60}


@pytest.fixture
def cache(own_redis: RedisServer, settings: Settings) -> Any:
    settings.CACHES = {
        "default": {**_entry("cacheapp.backends.RedisCache", own_redis), "OPTIONS": PATIENT},
        "theirs": _entry("django_redis.cache.RedisCache", own_redis),
    }
    return caches["default"]


def test_the_client_uses_the_keys_that_django_redis_uses(cache: Any) -> None:
    theirs: Any = caches["theirs"]
    for client in (cache.client, theirs.client):
        assert client.make_key("k") == "shop:3:k"
        assert client.make_key("k", version=1, prefix="other") == "other:1:k"
    cache.set("k", 5)
    assert cache.client.has_key("k") is True
    assert "k" in cache.client
    assert cache.client.keys("*") == ["k"]
    assert 0 < cache.client.ttl("k") <= 60
    assert cache.client.delete("k")
    assert cache.get("k") is None
    cache.client.set("w", 1)
    raw = get_redis_connection("default")
    assert raw.keys("*") == [b"shop:3:w"]
    raw.set("foreign", 1)
    assert cache.client.delete_pattern("*") == 1
    assert raw.keys("*") == [b"foreign"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clear", r"would empty the database; use clear\(\) of the cache"),
        ("encode", "values are signed"),
        ("close", "keeps its connections"),
        ("make_pattern", r"keys\(\)"),
        ("unheard_of", r"use get_client\(\)"),
    ],
)
def test_the_client_refuses_the_rest_by_name(cache: Any, name: str, hint: str) -> None:
    raw = cache.client.get_client()
    raw.set("foreign", 1)
    with pytest.raises(AttributeError, match=f"does not offer '{name}': .*{hint}"):
        getattr(cache.client, name)()
    assert raw.keys("*") == [b"foreign"]


def test_every_collection_method_is_django_redis_own(cache: Any) -> None:
    theirs: Any = caches["theirs"]
    assert [name for name in COLLECTION_METHODS if not hasattr(theirs.client, name)] == []
    assert all(hasattr(cache, name) for name in COLLECTION_METHODS)


def test_sets_hashes_and_sorted_sets_have_the_prefix_of_the_alias(cache: Any) -> None:
    value = {"not": ["plain"]}
    assert cache.sadd("set", 1, "two", "two") == 2
    assert cache.sadd("set", "old", version=1) == 1
    assert cache.smembers("set") == {1, "two"}
    assert cache.sismember("set", "two") is True
    assert cache.sadd("other", "two", 3) == 2
    assert cache.sinter("set", "other") == {"two"}
    assert cache.hset("hash", "field", value) == 1
    assert (cache.hkeys("hash"), cache.hlen("hash")) == (["field"], 1)
    assert cache.zadd("sorted", {"a": 1.0, "b": 2.0}) == 2
    assert cache.zrange("sorted", 0, -1) == ["a", "b"]
    assert cache.zscore("sorted", "b") == 2.0
    found = {key.decode() for key in get_redis_connection("default").keys("*")}
    names = {f"shop:3:{name}" for name in ("set", "other", "hash", "sorted")}
    assert found == names | {"shop:1:set"}


def test_collection_methods_have_async_twins(cache: Any) -> None:
    async def use() -> None:
        assert await cache.asadd("set", 1, "two", IPv4Address("192.0.2.1")) == 3
        assert await cache.asmembers("set") == {1, "two", IPv4Address("192.0.2.1")}
        assert await cache.asadd("set", "old", version=1) == 1
        assert await cache.ahset("hash", "field", {"not": ["plain"]}) == 1
        assert await cache.ahkeys("hash") == ["field"]
        assert await cache.azadd("sorted", {"a": 1.0, "b": 2.0}) == 2
        assert await cache.azrange("sorted", 0, -1) == ["a", "b"]
        with pytest.raises(StoreUnavailable, match="Redis refused sadd: WRONGTYPE"):
            await cache.asadd("hash", 1)

    asyncio.run(use())
    assert cache.smembers("set", version=1) == {"old"}
    with pytest.raises(AttributeError, match="asscan_iter"):
        cache.asscan_iter  # noqa: B018 (the access raises)


def test_a_collection_is_an_entry_to_the_methods_on_keys(cache: Any) -> None:
    cache.sadd("set", 1)
    assert cache.has_key("set") is True
    assert cache.ttl("set") is None
    assert cache.expire("set", 50) is True
    assert 0 < cache.ttl("set") <= 50
    assert cache.persist("set") is True
    assert cache.keys("*") == ["set"]
    assert cache.add("set", 1) is False
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        cache.get("set")
    assert cache.delete("set") is True
    cache.sadd("set", 1)
    cache.clear()
    assert cache.keys("*") == []


def test_a_member_that_this_cache_did_not_write_is_not_unpickled(cache: Any) -> None:
    get_redis_connection("default").sadd("shop:3:set", pickle.dumps("foreign"))
    with pytest.raises(ValueError, match="not written by this cache"):
        cache.smembers("set")


def test_errors_of_collections_are_those_of_the_cache(cache: Any, own_redis: RedisServer) -> None:
    cache.set("text", "value")
    with pytest.raises(StoreUnavailable, match="Redis refused sadd: WRONGTYPE"):
        cache.sadd("text", 1)
    own_redis.kill()
    with pytest.raises(OutcomeUnknown, match="sadd failed"):
        cache.sadd("set", 1)
