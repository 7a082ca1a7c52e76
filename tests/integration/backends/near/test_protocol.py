"""What the promises of NearCache rest on: leases, names that Redis sends, and sizes."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cacheapp.backends import NearCache, RedisCache
from cacheapp.backends.near import records
from cacheapp.backends.near.store import NearStore
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.backends.near.parts import (
    confirmed,
    ours,
    raw,
    until_copied,
)


def _get(cache: NearCache) -> Any:
    return cache.get("key")


def _get_many(cache: NearCache) -> Any:
    return cache.get_many(["key"]).get("key")


def _get_fresh(cache: NearCache) -> Any:
    return cache.get("key", fresh=True)


def _get_or_set(cache: NearCache) -> Any:
    return cache.get_or_set("key", "computed")


def _has_key_fresh(cache: NearCache) -> Any:
    return "new" if cache.has_key("key", fresh=True) else None


@pytest.mark.parametrize("read", [_get, _get_many, _get_fresh, _get_or_set, _has_key_fresh])
def test_reads_do_not_go_back_to_what_a_slow_fill_read(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch, read: Callable[[NearCache], Any]
) -> None:
    """Another machine writes between two reads, and its invalidation is late."""
    fetch = NearStore.fetch
    fetched, end = threading.Event(), threading.Event()

    def fetch_and_wait(self: NearStore, keys: Any) -> Any:
        rows = fetch(self, keys)
        if threading.current_thread() is slow:
            fetched.set()
            end.wait(30)
        return rows

    slow = threading.Thread(target=cache.get, args=("key",))
    monkeypatch.setattr(NearStore, "fetch", fetch_and_wait)
    slow.start()
    assert fetched.wait(30)
    copy = cache._copy  # noqa: SLF001
    with monkeypatch.context() as late:
        late.setattr(type(copy), "apply", lambda *_args, **_options: 0)
        RedisCache(cache.location, {"KEY_PREFIX": cache.key_prefix}).set("key", "new")
        assert read(cache) == "new"
        end.set()
        slow.join(30)
        _, (copied,) = copy.find([copy.encode(cache.make_key("key"))])
    assert copied.tag != records.MISSING  # what the slow fill read
    assert cache.get("key") == "new"


def test_a_key_that_is_no_text_is_ignored(
    redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = NearCache(
        redis_server.url,
        {
            "KEY_FUNCTION": lambda key, prefix, version: f"{tmp_path.name}{prefix}{version}{key}",
            "OPTIONS": {"copy": str(tmp_path / "copy"), "size_limit": 8 * 2**20},
        },
    )
    confirmed(cache)
    epoch = cache.stats()["copy_epoch"]
    with raw(redis_server) as client:
        client.set(b"\xff\xfe", b"x", ex=60)
        cache.set("key", 1)
        until_copied(cache, lambda: cache.get("key"))
        client.set(cache.make_key("key"), 2, ex=60)
    until(lambda: cache.get("key") == 2, "the write of another machine to be seen", 30)
    assert cache.stats()["copy_epoch"] == epoch
    assert "failed" not in caplog.text


def test_what_is_too_large_for_the_copy_leaves_it_trusted(
    cache: NearCache, caplog: pytest.LogCaptureFixture
) -> None:
    large = {f"large-{number}": b"x" * 900_000 for number in range(5)}
    large["excluded"] = b"x" * (4 * 2**20)
    cache.set_many({**large, "small": 1}, timeout=60)
    assert cache.get_many(list(large)) == large
    del large["excluded"]
    until_copied(cache, lambda: cache.get_many([*large, "small"]))
    assert cache.get_many(list(large)) == large
    assert "copy failed" not in caplog.text


def test_keys_that_redis_does_not_track_are_not_copied(cache: NearCache) -> None:
    cache.key_prefix = f"other-{cache.key_prefix}"
    other = RedisCache(cache.location, {"KEY_PREFIX": cache.key_prefix})
    for number in range(20):
        other.set("key", number)
        assert cache.get("key") == number
        assert cache.get_many(["key"]) == {"key": number}


def test_an_emptied_database_is_an_empty_copy_for_a_process_that_has_not_opened_it(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(redis_server, tmp_path, prefix=tmp_path.name)
    confirmed(cache)
    cache.set("key", 1)
    until_copied(cache, lambda: cache.get("key"))
    copy = cache._copy  # noqa: SLF001
    epoch = cache.stats()["copy_epoch"]
    monkeypatch.setattr(type(copy), "apply", lambda *_args, **_options: 0)
    copy.environment.close()
    copy.clear()
    assert cache.stats()["copy_epoch"] > epoch
