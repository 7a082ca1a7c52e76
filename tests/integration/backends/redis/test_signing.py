import logging
import os
import pickle
from pathlib import Path
from typing import Any

import django_redis.cache
import pytest

from cacheapp.backends import RedisCache
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.processes.servers import RedisServer
from tests.integration.backends.redis.parts import ours, raw


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def cache(own_redis: RedisServer) -> RedisCache:
    return ours(own_redis.url)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "it ran"


def store_raw(server: RedisServer, key: str, payload: bytes) -> None:
    with raw(server) as client:
        client.set(key, payload)


def load_raw(server: RedisServer, key: str) -> bytes | None:
    with raw(server) as client:
        found: bytes | None = client.get(key)
        return found


def forgeries(server: RedisServer, cache: RedisCache, target: Path) -> dict[str, bytes]:
    bomb = pickle.dumps(Bomb(target))
    cache.set("other", "value")
    genuine = load_raw(server, "ours:1:other")
    assert genuine is not None
    return {
        "a header of another format": b"\xb4" + bomb,
        "a signature of something else": genuine[:17] + bomb,
        "an empty signature": b"\xa4" + bytes(16) + bomb,
        "a payload moved from another key": genuine,
    }


def test_no_forged_pickle_runs_and_its_key_works_again(
    own_redis: RedisServer, cache: RedisCache, target: Path
) -> None:
    for name, payload in forgeries(own_redis, cache, target).items():
        store_raw(own_redis, "ours:1:key", payload)
        assert cache.get("key", "default") == "default", name
        assert load_raw(own_redis, "ours:1:key") is None, name
        store_raw(own_redis, "ours:1:key", payload)
        assert cache.get_many(["key"]) == {}, name
        store_raw(own_redis, "ours:1:key", payload)
        with pytest.raises(ValueError, match="not found"):
            cache.incr("key")
        store_raw(own_redis, "ours:1:key", payload)
        with pytest.raises(ValueError, match="not found"):
            cache.incr_version("key")
        assert cache.add("key", "again"), name
        assert cache.get("key") == "again", name
    assert not target.exists()


@pytest.mark.parametrize(
    "head", [b"\xa0", b""], ids=["as-of-a-release-that-did-not-sign", "as-of-django-redis"]
)
def test_a_forged_pickle_without_the_signature_flag_stays_and_never_runs(
    own_redis: RedisServer, cache: RedisCache, target: Path, head: bytes
) -> None:
    payload = head + pickle.dumps(Bomb(target))
    store_raw(own_redis, "ours:1:key", payload)
    assert cache.get("key", "default") == "default"
    assert cache.get_many(["key"]) == {}
    assert load_raw(own_redis, "ours:1:key") == payload
    assert cache.get_or_set("key", "again") == "again"
    assert cache.get("key") == "again"
    assert not target.exists()


def test_a_forged_pickle_runs_on_stock_and_where_signing_is_turned_off(
    own_redis: RedisServer, target: Path
) -> None:
    bomb = pickle.dumps(Bomb(target))
    store_raw(own_redis, "stock:1:key", bomb)
    django_redis.cache.RedisCache(own_redis.url, {"KEY_PREFIX": "stock"}).get("key")
    assert target.exists()
    target.rmdir()
    store_raw(own_redis, "ours:1:key", b"\xa0" + bomb)
    ours(own_redis.url, signed=False).get("key")
    assert target.exists()


def test_a_rejected_value_is_removed_only_if_it_was_not_replaced(
    own_redis: RedisServer, cache: RedisCache
) -> None:
    store = cache._store  # noqa: SLF001
    store_raw(own_redis, "ours:1:key", b"forged")
    seen = store.get("ours:1:key")
    cache.set("key", "right")
    assert seen is not None
    assert store.discard("ours:1:key", seen) is False
    assert cache.get("key") == "right"


def test_a_moved_value_is_signed_for_its_new_version(
    own_redis: RedisServer, cache: RedisCache
) -> None:
    cache.set("key", "value")
    before = load_raw(own_redis, "ours:1:key")
    cache.incr_version("key")
    after = load_raw(own_redis, "ours:2:key")
    assert before is not None
    assert after is not None
    assert before != after
    assert cache.get("key", version=2) == "value"
    store_raw(own_redis, "ours:2:key", before)  # as after a plain RENAME
    assert cache.get("key", version=2) is None


def test_rejected_values_are_counted_each_and_logged_once_a_minute(
    own_redis: RedisServer, cache: RedisCache, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    cache._decoder.rejections = LogThrottle(now_s=lambda: now[0])  # noqa: SLF001
    before = cache.stats()["values_rejected"]

    def reject(times: int) -> None:
        for _ in range(times):
            store_raw(own_redis, "ours:1:key", b"forged")
            cache.get("key")

    with caplog.at_level(logging.WARNING):
        reject(5)
        now[0] += 61
        reject(1)
    assert cache.stats()["values_rejected"] == before + 6
    event = "cache_value_rejected"  # a thread that another test has left may log something else
    found = [record for record in caplog.records if getattr(record, "event", None) == event]
    lines = [record.getMessage() for record in found]
    assert len(lines) == 2
    assert "header 66" in lines[0]
    assert "4 more since" in lines[1]
