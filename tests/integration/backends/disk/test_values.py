"""Large values live in files beside the database: they exist as long as their rows."""

import os
import signal
from pathlib import Path

import pytest
from django.core.cache import InvalidCacheKey, caches
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.backends import DiskCache
from cacheapp.errors import StoreFull, StoreUnavailable
from cacheapp.processes.waiting import until
from tests.contract import work
from tests.contract.clients import calls
from tests.integration.backends.disk.parts import (
    LARGE,
    STOCK,
    forked,
    ours,
    use,
    value_files,
)


def _readers_and_writers(settings: Settings, reads: int) -> list[str]:
    """Return what readers of a key that always exists missed while two processes overwrote it."""
    caches["default"].set_many({"kill-counter": 0, "key": work.checked(LARGE, 0)}, timeout=None)
    caches["default"].close()
    running = forked(settings).start(
        [
            calls(work.overwrite_for_ever, ["key"], [LARGE]),
            calls(work.overwrite_for_ever, ["key"], [LARGE]),
            calls(work.read_checked, ["key"], reads),
            calls(work.read_checked, ["key"], reads),
        ]
    )
    try:
        found: list[str] = []
        for pipe in running.pipes[2:]:
            assert pipe.poll(120)
            ((outcome, wrong),) = pipe.recv()
            assert outcome == "ok", wrong
            found += wrong
        return found
    finally:
        running.stop()


def test_a_reader_never_misses_a_large_value_that_is_being_overwritten(
    settings: Settings, tmp_path: Path
) -> None:
    ours(settings, tmp_path)
    assert _readers_and_writers(settings, 2000) == []


def test_with_the_stock_backend_a_reader_does_miss_it(settings: Settings, tmp_path: Path) -> None:
    use(settings, tmp_path, STOCK)
    missed = until(lambda: _readers_and_writers(settings, 2000), "a miss", within_s=200)
    assert set(missed) == {"key missing"}


@pytest.mark.parametrize("harm", ["gone", "short"])
def test_a_value_file_that_is_damaged_is_a_miss_and_its_row_goes(
    settings: Settings, tmp_path: Path, harm: str
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", b"x" * LARGE)
    (file,) = value_files(tmp_path)
    if harm == "gone":
        file.unlink()
    else:
        os.truncate(file, 1000)
    assert cache.has_key("key")
    assert cache.get("key", "miss") == "miss"
    assert not cache.has_key("key")
    cache.set("key", b"y" * LARGE)
    assert cache.get("key") == b"y" * LARGE
    assert len(value_files(tmp_path)) == 1


def test_a_value_file_that_cannot_be_read_is_an_error_of_the_cache(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", b"x" * LARGE)
    (file,) = value_files(tmp_path)
    file.rename(tmp_path / "aside")
    file.mkdir()  # like any `open` that fails although the file exists
    with pytest.raises(StoreUnavailable, match=r"Is a directory.*nothing was done"):
        cache.get("key")
    file.rmdir()
    (tmp_path / "aside").rename(file)
    assert cache.get("key") == b"x" * LARGE


def test_overwriting_deleting_moving_and_refused_adds_leave_no_file_behind(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    for _ in range(3):
        cache.set("key", b"x" * LARGE)
    assert not cache.add("key", b"y" * LARGE)
    cache.incr_version("key")
    assert len(value_files(tmp_path)) == 1
    assert cache.get("key", version=2) == b"x" * LARGE
    cache.set("key", 1, version=2)
    assert value_files(tmp_path) == []
    cache.set_many({f"key-{n}": b"x" * LARGE for n in range(5)})
    cache.delete_many([f"key-{n}" for n in range(3)])
    assert len(value_files(tmp_path)) == 2
    cache.clear()
    assert value_files(tmp_path) == []


def test_what_killed_writers_leave_behind_is_whole_and_orphans_go_in_time(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(settings, tmp_path, shards=1)
    keys = [f"key-{n}" for n in range(5)]
    cache.set_many({key: work.checked(LARGE, 0) for key in keys}, timeout=None)
    cache.set("kill-counter", 0, timeout=None)
    for _ in range(15):
        writer = calls(work.overwrite_for_ever, keys, [10, LARGE])
        running = forked(settings).start([writer, writer])
        before = cache.get("kill-counter")
        until(
            lambda before=before: cache.get("kill-counter") > before,  # type: ignore[misc]
            "the writers to write",
        )
        os.kill(running.processes[0].pid, signal.SIGKILL)
        os.kill(running.processes[1].pid, signal.SIGKILL)
        running.stop()
        assert all(work.is_whole(cache.get(key)) for key in keys)
    cache.set_many({key: work.checked(LARGE, 0) for key in keys}, timeout=None)
    # What a writer leaves that is killed between its file and its row:
    orphan = value_files(tmp_path)[0].parent / ("0" * 30 + ".val")
    orphan.write_bytes(b"x" * LARGE)
    cache.set("key-0", work.checked(LARGE, 1), timeout=None)
    assert orphan.exists(), "a file as young as this may have its row committed next"
    later = clock.wall_s() + 3600
    monkeypatch.setattr(clock, "wall_s", lambda: later)
    cache.set("key-0", work.checked(10, 1), timeout=None)
    assert not orphan.exists()
    assert all(work.is_whole(cache.get(key)) for key in keys)
    cache.set_many(dict.fromkeys(keys, 1))
    assert value_files(tmp_path) == []


def test_integers_count_up_to_64_bits_and_round_trip_beyond(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    for number in (0, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**5000):
        cache.set("key", number)
        assert cache.get("key") == number
        assert cache.incr("key") == number + 1
        assert cache.get("key") == number + 1
    cache.set("key", -(2**63))
    assert cache.decr("key") == -(2**63) - 1


@pytest.mark.parametrize("prefix", ["", "a", "a:b:", ":"])
def test_all_versions_of_a_key_share_a_shard_whatever_the_prefix(
    settings: Settings, tmp_path: Path, prefix: str
) -> None:
    cache = DiskCache(str(tmp_path), {"KEY_PREFIX": prefix})
    for n in range(30):
        cache.set(f"key:{n}", n, version=9)
        assert cache.incr_version(f"key:{n}", version=9) == 10
        assert cache.get(f"key:{n}", version=9) is None
        assert cache.get(f"key:{n}", version=10) == n
    assert len(list(tmp_path.rglob("cache.db"))) > 2, "and keys are spread"


def test_with_a_key_function_there_is_one_shard_and_versions_move(
    settings: Settings, tmp_path: Path
) -> None:
    cache = DiskCache(
        str(tmp_path), {"KEY_FUNCTION": "tests.integration.backends.disk.parts.own_key"}
    )
    for n in range(30):
        cache.set(f"key:{n}", n)
        assert cache.incr_version(f"key:{n}") == 2
        assert cache.get(f"key:{n}", version=2) == n
    assert len(list(tmp_path.rglob("cache.db"))) == 1


def test_entries_are_evicted_by_tag(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path, tag_index=True)
    for n in range(300):
        cache.set(f"key-{n}", n, tag="odd" if n % 2 else "even")
    cache.set("key-1", "without")
    before = cache.stats()["sets"]
    assert cache.add("added", b"x" * LARGE, tag="odd")
    assert cache.stats()["sets"] == before + 1
    cache.incr("key-3")
    cache.incr_version("key-5")
    assert cache.evict("odd") == 150
    assert sorted(cache.get_many([f"key-{n}" for n in range(300)])) == sorted(
        ["key-1", *(f"key-{n}" for n in range(0, 300, 2))]
    )
    assert cache.get("key-5", version=2) is None
    assert value_files(tmp_path) == []


@pytest.mark.parametrize("policy", ["least-recently-used", "least-frequently-used"])
def test_what_is_used_stays_under_the_policies_that_depend_on_use(
    settings: Settings, tmp_path: Path, policy: str
) -> None:
    cache = ours(settings, tmp_path, size_limit=2**21, shards=1, eviction_policy=policy)
    cache.set("used", "often", timeout=None)
    cache.set("unused", "never", timeout=None)
    for n in range(400):
        cache.set(f"key-{n}", os.urandom(10_000), timeout=None)
        assert cache.get("used") == "often"
    assert cache.get("unused") is None


@pytest.mark.parametrize("shards", [1, 8])
def test_a_key_that_sqlite_cannot_store_is_refused_by_name(
    settings: Settings, tmp_path: Path, shards: int
) -> None:
    cache = ours(settings, tmp_path, shards=shards)
    for call in (
        lambda: cache.set("\ud800", 1),
        lambda: cache.get("\ud800"),
        lambda: cache.get_many(["a", "\ud800"]),
        lambda: cache.delete("\ud800"),
    ):
        with pytest.raises(InvalidCacheKey, match="half of a surrogate pair"):
            call()


def test_a_value_that_no_shard_has_room_for_is_refused_before_the_store_is_touched(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path / "cache", size_limit=2**23)
    for refused in (
        lambda: cache.set("key", bytes(2**21)),
        lambda: cache.add("key", bytes(2**21), tag="tag"),
    ):
        with pytest.raises(StoreFull, match=r"has 2097.* bytes; the largest has 7"):
            refused()
    assert not (tmp_path / "cache").exists()
    cache.set("key", 1)
    cache.set("key", bytes(2**21), 0)  # only removes the key
    assert cache.get("key") is None
