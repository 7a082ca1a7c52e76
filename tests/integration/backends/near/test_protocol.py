"""What the promises of NearCache rest on: voided fills, moves, names that Redis sends, and sizes."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cacheapp.backends import NearCache
from cacheapp.backends.lmdb import eviction
from cacheapp.backends.near import records, store
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.store import NearStore
from cacheapp.backends.redis.store import RedisStore
from cacheapp.errors import OutcomeUnknown
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.contract.backends import PATIENT
from tests.integration.backends.near.parts import (
    confirmed,
    other,
    ours,
    raw,
    reads_of_redis,
    until_copied,
    until_settled,
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
    fetch = NearStore.fetch_one
    fetched, end = threading.Event(), threading.Event()

    def fetch_and_wait(self: NearStore, key: str) -> Any:
        row = fetch(self, key)
        if threading.current_thread() is slow:
            fetched.set()
            end.wait(30)
        return row

    slow = threading.Thread(target=cache.get, args=("key",))
    monkeypatch.setattr(NearStore, "fetch_one", fetch_and_wait)
    slow.start()
    assert fetched.wait(30)
    copy = cache._copy  # noqa: SLF001
    with monkeypatch.context() as late:
        late.setattr(type(copy), "apply", lambda *_args, **_options: 0)
        other(cache).set("key", "new")
        assert read(cache) == "new"
        end.set()
        slow.join(30)
        _, (copied,) = copy.find([copy.encode(cache.make_key("key"))])
    assert copied.tag != records.MISSING  # what the slow fill read
    assert cache.get("key") == "new"


def test_a_key_that_is_no_text_is_ignored(
    redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"copy": str(tmp_path / "copy"), "size_limit": 8 * 2**20, "max_staleness": 30.0}
    cache = NearCache(
        redis_server.url,
        {
            "KEY_FUNCTION": lambda key, prefix, version: f"{tmp_path.name}{prefix}{version}{key}",
            "OPTIONS": {**PATIENT, **options},
        },
    )
    confirmed(cache)
    epoch = cache.stats()["copy_epoch"]
    with raw(redis_server) as client:
        client.set(b"\xff\xfe", b"x", ex=60)
        cache.set("key", 1)
        until_copied(cache, lambda: cache.get("key"))
        client.set(cache.make_key("key"), 2, ex=60)
    until(lambda: cache.get("key") == 2, "the write of another machine to be seen")
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
    elsewhere = other(cache)
    for number in range(20):
        elsewhere.set("key", number)
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


def _evict_all(cache: NearCache) -> None:
    cache._copy.environment.write(eviction.evict, 1000, 0)  # noqa: SLF001


def _write_here(cache: NearCache) -> None:
    cache.set("key", "new")


def _lose_an_answer(cache: NearCache) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisStore, "set", _raise_after(RedisStore.set))
        patch.setattr(NearStore, "set", store._then_forget(RedisStore.set))  # noqa: SLF001
        with pytest.raises(OutcomeUnknown):
            cache.set("key", "new")


def _raise_after(method: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any) -> None:
        method(*args)
        raise OutcomeUnknown

    return wrapped


def _read_and_evict(cache: NearCache) -> None:
    other(cache).set("key", "new")
    assert cache.get("key") == "new"
    _evict_all(cache)


@pytest.mark.parametrize("meanwhile", [_write_here, _lose_an_answer, _read_and_evict])
def test_a_fill_stores_nothing_that_became_old_meanwhile(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[NearCache], None]
) -> None:
    """The invalidations of Redis are late: only this machine knows of the change."""
    cache.set("key", "old")
    fetch = NearStore.fetch_one

    def fetch_and_be_late(self: NearStore, key: str) -> Any:
        monkeypatch.setattr(NearStore, "fetch_one", fetch)
        row = fetch(self, key)
        meanwhile(cache)
        return row

    monkeypatch.setattr(LocalCopy, "apply", _confirm_only(LocalCopy.apply))
    monkeypatch.setattr(NearStore, "fetch_one", fetch_and_be_late)
    assert cache.get("key") == "old"
    assert cache.get("key") == "new"


def _confirm_only(apply: Callable[..., int]) -> Callable[..., int]:
    def wrapped(self: LocalCopy, owner: bytes, keys: Any, **options: Any) -> int:
        del keys
        return apply(self, owner, [], **options)

    return wrapped


def test_an_equal_value_of_another_fill_is_kept(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the readers of a key that all read it at once would void each other's fills."""
    cache.set("key", "value")
    until_settled(cache)
    fetch = NearStore.fetch_one

    def fetch_beside_another(self: NearStore, key: str) -> Any:
        row = fetch(self, key)
        monkeypatch.setattr(NearStore, "fetch_one", fetch)
        cache.get("key")
        return row

    monkeypatch.setattr(LocalCopy, "apply", _confirm_only(LocalCopy.apply))
    cache._copy.forget([cache.make_key("key")])  # noqa: SLF001
    monkeypatch.setattr(NearStore, "fetch_one", fetch_beside_another)
    assert cache.get("key") == "value"
    assert reads_of_redis(cache, lambda: cache.get("key")) == 0


def test_no_key_is_copied_while_it_is_moved(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even after an invalidation, a write or an eviction in the meantime."""
    cache.set("key", "value")
    cache.set("other", 1)
    until_copied(cache, lambda: cache.get("key"))
    move = RedisStore.move
    found = []

    def move_late(self: RedisStore, *args: Any) -> bool:
        monkeypatch.setattr(RedisStore, "move", move)
        for disturb in (_forget, _evict_all, _move_another):
            disturb(cache)
            found.append(reads_of_redis(cache, lambda: [cache.get("key") for _ in range(3)]))
        return move(self, *args)

    monkeypatch.setattr(RedisStore, "move", move_late)
    assert cache.incr_version("key") == 2
    assert found == [3, 3, 3]
    until_copied(cache, lambda: (cache.get("key"), cache.get("key", version=2)))
    assert (cache.get("key"), cache.get("key", version=2)) == (None, "value")


def _forget(cache: NearCache) -> None:
    cache._copy.forget([cache.make_key("key")])  # noqa: SLF001


def _move_another(cache: NearCache) -> None:
    cache.incr_version("other")
