"""What the copy holds, what it does not, and what goes to Redis."""

import asyncio
import hashlib
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from cacheapp.backends import NearCache
from cacheapp.backends.near.store import NearStore
from cacheapp.errors import StoreUnavailable
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.near.parts import (
    changes_of,
    confirmed,
    kill_tracking,
    other,
    ours,
    raw,
    reads_of_redis,
    until_copied,
    until_settled,
)


@pytest.mark.parametrize(
    "value", [{"a": [1, 2]}, "text", 7, -(2**70), None, b"x" * 100_000, True, 1.5]
)
def test_a_value_is_read_from_redis_once(cache: NearCache, value: object) -> None:
    cache.set("key", value)
    assert reads_of_redis(cache, lambda: cache.get("key")) == 1
    until_copied(cache, lambda: [cache.get("key") for _ in range(10)])
    found = cache.get("key")
    assert found == value
    assert type(found) is type(value)
    assert cache.get_many(["key"]) == {"key": value}
    assert cache.has_key("key")


def test_a_missing_key_is_copied_too(cache: NearCache) -> None:
    assert cache.get("key") is None
    until_copied(cache, lambda: (cache.get("key"), cache.has_key("key")))
    other(cache).set("key", 1)
    until(lambda: cache.get("key") == 1, "the write of another machine to be seen")


def test_many_keys_are_read_in_one_step(cache: NearCache) -> None:
    data = {f"key-{number}": number for number in range(2500)}
    other(cache).set_many(data)
    assert cache.get_many([*data, "missing"]) == data
    until_copied(cache, lambda: cache.get_many([*data, "missing"]))
    assert cache.get_many([*data, "missing"]) == data


def test_long_and_strange_keys_are_copied(cache: NearCache) -> None:
    for key in ("k" * 200, "é" * 120, "a b", "", "\x01"):
        with pytest.warns() if " " in key or "\x01" in key else threading.Lock():
            cache.set(key, key)
            assert [cache.get(key) for _ in range(3)] == [key] * 3


def test_a_read_that_must_be_fresh_goes_to_redis(cache: NearCache) -> None:
    cache.set("key", 1)
    assert cache.get("key") == 1
    elsewhere = other(cache)
    for number in range(200):
        elsewhere.set("key", number)
        assert cache.get("key", fresh=True) == number
        # A fresh read leaves nothing older behind, so reads do not go back.
        assert cache.get("key") == number
    with cache.fresh():
        elsewhere.set("key", "new")
        assert cache.get("key") == "new"
        assert cache.get_many(["key"]) == {"key": "new"}
        elsewhere.delete("key")
        assert not cache.has_key("key")


def test_get_or_set_and_counting_never_use_the_copy(cache: NearCache) -> None:
    elsewhere = other(cache)
    elsewhere.set("key", 0)
    cache.get("key")
    for number in range(1, 200):
        elsewhere.incr("key")
        assert cache.get_or_set("key", lambda: None) == number
    assert elsewhere.incr("key") == cache.incr("key") - 1


def test_a_write_in_mid_fill_voids_it(cache: NearCache, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = other(cache)
    elsewhere.set("key", "old")
    until_settled(cache)
    until_copied(cache, lambda: cache.get("key"))
    cache._copy.forget([cache.make_key("key")])  # noqa: SLF001
    voided = cache.stats()["copy_voided_fills"]
    fetch = NearStore.fetch_one

    def fetch_and_be_overtaken(self: NearStore, key: str) -> Any:
        found = fetch(self, key)
        before = changes_of(cache, "key")
        elsewhere.set("key", "new")
        until(lambda: changes_of(cache, "key") > before, "the invalidation")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(NearStore, "fetch_one", fetch_and_be_overtaken)
        assert cache.get("key") == "old"  # the read began before the write
    assert cache.stats()["copy_voided_fills"] == voided + 1
    assert cache.get("key") == "new"


def test_a_fill_that_began_before_redis_tracked_is_not_served(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = other(cache)
    elsewhere.set("key", "old")
    until_copied(cache, lambda: cache.get("key"))
    cache._copy.forget([cache.make_key("key")])  # noqa: SLF001
    fetch = NearStore.fetch_one

    def fetch_and_lose_the_connection(self: NearStore, key: str) -> Any:
        found = fetch(self, key)
        epoch = cache.stats()["copy_epoch"]
        self.invalidations.stop()
        elsewhere.set("key", "new")  # nothing tracks it
        monkeypatch.undo()
        until(lambda: cache.get("other") or cache.stats()["copy_epoch"] > epoch, "another epoch")
        return found

    monkeypatch.setattr(NearStore, "fetch_one", fetch_and_lose_the_connection)
    assert cache.get("key") == "old"
    confirmed(cache)
    assert cache.get("key") == "new"


def test_what_changed_while_nothing_tracked_it_is_not_served(tmp_path: Path) -> None:
    with RedisServer() as server:
        cache = ours(server.start(), tmp_path)
        confirmed(cache)
        elsewhere = other(cache)
        elsewhere.set("key", "old")
        until_copied(cache, lambda: cache.get("key"))
        epoch = cache.stats()["copy_epoch"]
        until(lambda: kill_tracking(server), "a connection that tracks")
        elsewhere.set("key", "new")  # read by nobody until there is a new connection
        until(lambda: cache.get("other") or cache.stats()["copy_epoch"] > epoch, "an epoch")
        confirmed(cache)
        assert cache.get("key") == "new"


def test_no_entry_outlives_its_deadline_in_redis(cache: NearCache) -> None:
    hits = cache.stats()["copy_hits"]

    def was_served() -> bool:
        cache.set("key", "value", timeout=1)
        ends_s = time.monotonic() + 1
        while True:
            began_s = time.monotonic()
            if cache.get("key") is None:
                return cache.stats()["copy_hits"] > hits
            assert began_s < ends_s + 0.05

    until(was_served, "the copy to be served", 60)


def test_stale_values_are_hidden_from_get(cache: NearCache) -> None:
    def is_read() -> bool:
        cache.set("key", "value", timeout=0.3, stale=100)
        return bool(cache.get("key") == "value")

    until(is_read, "a read before the deadline")
    until(lambda: cache.get("key") is None, "the deadline")
    assert cache.get_or_set("key", "new", stale=100) in {"value", "new"}


def test_large_values_and_excluded_keys_are_not_copied(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    cache = ours(
        *(redis_server, tmp_path, tmp_path.name),
        copy_max_bytes=1000,
        copy_exclude=["session:*"],
    )
    confirmed(cache)
    cache.set_many({"large": "x" * 2000, "session:1": 1, "small": 2})
    for key in ("large", "session:1"):
        assert reads_of_redis(cache, lambda key=key: (cache.get(key), cache.get(key))) == 2  # type: ignore[misc]
    until_copied(cache, lambda: cache.get("small"))
    assert cache.get_many(["large", "session:1", "small"]) == {
        "large": "x" * 2000,
        "session:1": 1,
        "small": 2,
    }


def test_what_another_program_wrote_is_a_miss_and_is_removed(
    cache: NearCache, redis_server: RedisServer
) -> None:
    with raw(redis_server) as client:
        client.set(cache.make_key("key"), b"\xf0 by another program")
        assert cache.get("key") is None
        assert client.get(cache.make_key("key")) is None
    assert cache.get("key") is None


def test_an_emptied_database_is_an_empty_copy(cache: NearCache, redis_server: RedisServer) -> None:
    cache.set("key", 1)
    assert cache.get("key") == 1
    with raw(redis_server) as client:
        client.flushall()
    until(lambda: cache.get("key") is None, "the copy to be empty")


async def test_a_value_in_the_copy_is_read_in_the_event_loop(cache: NearCache) -> None:
    await cache.aset("key", {"a": 1})
    assert await cache.aget("key") == {"a": 1}
    assert await cache.aget("key") == {"a": 1}
    assert await cache.aget("missing", "default") == "default"
    assert await cache.ahas_key("key")
    assert await cache.aget_many(["key", "missing"]) == {"key": {"a": 1}}
    await asyncio.to_thread(until_copied, cache, lambda: asyncio.run(cache.aget("key")))


def test_a_user_who_may_not_track_has_a_plain_redis_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer() as server:
        server.start()
        with raw(server) as client:
            client.acl_setuser(
                "limited",
                enabled=True,
                passwords=["+secret"],
                keys="*",
                channels="*",
                categories=["+@all"],
                commands=["-client|tracking"],
            )
        cache = ours(server, tmp_path, USERNAME="limited", PASSWORD="secret")  # noqa: S106
        with caplog.at_level(logging.WARNING):
            cache.set("key", 1)
            cache.get("key")
            until(lambda: "does not track" in caplog.text, "the warning")
        with raw(server) as client:
            client.set("near:1:key", 2)
        assert cache.get("key") == 2
        assert cache.stats()["copy_hits"] == 0
        assert "secret" not in caplog.text


def test_two_aliases_of_one_copy_must_have_one_size(cache: NearCache) -> None:
    options = {**cache.params["OPTIONS"], "size_limit": 16 * 2**20}
    with pytest.raises(ImproperlyConfigured, match="one copy has one size_limit"):
        NearCache(cache.location, {"KEY_PREFIX": cache.key_prefix, "OPTIONS": options})


def test_a_copy_of_another_format_is_left_to_the_release_that_made_it(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    cache = ours(redis_server, tmp_path)
    cache.set("key", [1])
    assert cache.get("key") == [1]
    (made,) = (tmp_path / "copy").iterdir()
    earlier = f"{redis_server.url}\0near:\x0030.0"
    assert made.name != hashlib.blake2b(earlier.encode(), digest_size=8).hexdigest()


def test_wrong_options_are_named(tmp_path: Path) -> None:
    found = NearCache.mistakes(
        "redis://localhost",
        {"OPTIONS": {"max_staleness": 0.01, "copy_exclude": "x", "copy_max_bytes": -1}},
    )
    text = "\n".join(found)
    for part in ("copy'] is missing", "max_staleness", "copy_exclude", "copy_max_bytes"):
        assert part in text
    assert not NearCache.mistakes("redis://localhost", {"OPTIONS": {"copy": str(tmp_path)}})


def test_a_copy_that_cannot_be_opened_leaves_a_plain_redis_cache(
    redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "copy").write_text("a file")
    cache = ours(redis_server, tmp_path, prefix=tmp_path.name)
    cache.set("key", 1)
    assert cache.get("key") == 1
    assert cache.get_many(["key"]) == {"key": 1}
    assert "the copy failed" in caplog.text
    assert cache.stats()["copy_hits"] == 0


def test_a_server_that_is_down_is_an_error(tmp_path: Path) -> None:
    with RedisServer() as server:
        cache = ours(server, tmp_path)
        with pytest.raises(StoreUnavailable):
            cache.get("key")


async def test_an_async_read_counts_once_why_it_went_to_redis(cache: NearCache) -> None:
    await cache.aset("key", 1)
    before = cache.stats()
    assert await cache.aget("key") == 1
    after = cache.stats()
    assert after["copy_absent"] == before["copy_absent"] + 1
    assert after["hits"] == before["hits"] + 1
    assert after["copy_hits"] == before["copy_hits"]


def test_a_key_that_is_no_text_and_has_no_hash_is_as_in_redis_cache(cache: NearCache) -> None:
    for key in ([1], [2]):
        assert cache.get(key) is None
        cache.set(key, "value")
        assert other(cache).get(key) == "value"
        assert [cache.get(key) for _ in range(2)] == ["value"] * 2
        assert cache.has_key(key)


def test_an_excluded_key_leaves_the_others_to_the_copy(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(redis_server, tmp_path, tmp_path.name, copy_exclude=["session:*"])
    confirmed(cache)
    wanted = {"session:1": 1, "a": 2, "b": 3}
    cache.set_many(wanted)
    until_settled(cache)
    until_copied(cache, lambda: cache.get_many(["a", "b"]))
    read: list[str] = []
    get_many = NearStore.get_many

    def noted(self: NearStore, keys: Any) -> Any:
        read.extend(keys)
        return get_many(self, keys)

    with monkeypatch.context() as patch:
        patch.setattr(NearStore, "get_many", noted)
        assert cache.get_many([*wanted, "session:2"]) == wanted
    assert sorted(read) == [cache.make_key(key) for key in ("session:1", "session:2")]
    assert cache.get_many(["session:1"]) == {"session:1": 1}
    assert cache.get_many(["session:2"]) == {}


def test_figures_have_the_same_names_while_the_copy_cannot_be_read(
    cache: NearCache, redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "copy").write_text("a file")
    down = ours(redis_server, tmp_path / "elsewhere", prefix=tmp_path.name)
    assert down.stats().keys() == cache.stats().keys()
    assert down.stats()["copy_entries"] == 0
