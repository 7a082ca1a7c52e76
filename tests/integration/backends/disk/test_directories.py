"""The directory of an alias: created once, private, bounded, and shared again after a replacement."""

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import diskcache
import pytest
from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.backends import DiskCache
from cacheapp.errors import OptionsRefused, StoreUnavailable
from cacheapp.processes.waiting import until
from tests.contract import work
from tests.contract.clients import calls
from tests.integration.backends.disk.parts import (
    LARGE,
    bytes_under,
    databases,
    forked,
    ours,
    shards,
    stock,
    value_files,
)


def _first(cache: Any, n: int) -> bool:
    cache.set(f"mine-{n}", n)
    return bool(cache.get(f"mine-{n}") == n)


def test_many_processes_may_use_a_new_directory_first(settings: Settings, tmp_path: Path) -> None:
    for turn in range(5):
        cache = ours(settings, tmp_path / str(turn))
        clients = forked(settings)
        works = [calls(_first, n) for n in range(8)]
        assert clients.start(works, threads=2).results() == [True] * 16
        assert cache.get_many([f"mine-{n}" for n in range(8)]) == {f"mine-{n}": n for n in range(8)}


def _first_anew(_cache: Any, location: str) -> bool:
    """Act as a process that starts now, with the stock backend."""
    return _first(diskcache.DjangoCache(location, {}), 1)


def _serve(cache: Any, n: int) -> None:
    """Serve requests until one is "stop": record the value that each request reads."""
    while True:
        asked = cache.get("ask")
        if asked == "stop":
            return
        cache.set(f"saw-{n}", asked)
        cache.close()


@pytest.mark.parametrize("how", ["removed", "replaced", "emptied"])
def test_all_processes_meet_in_a_new_directory_within_a_request(
    settings: Settings, tmp_path: Path, how: str
) -> None:
    location = tmp_path / "cache"
    cache = ours(settings, location)
    running = forked(settings).start([calls(_serve, n) for n in range(4)])
    names = [f"saw-{n}" for n in range(4)]

    def all_see(value: str) -> bool:
        if any(pipe.poll() for pipe in running.pipes):
            running.results()  # raises the error of a client that has ended
        cache.set("ask", value)
        cache.close()
        return set(cache.get_many(names).values()) == {value} and len(cache.get_many(names)) == 4

    try:
        until(lambda: all_see("first"), "all to see the first")
        for turn in range(5):
            if how == "removed":
                shutil.rmtree(location, ignore_errors=True)
            elif how == "replaced":
                location.rename(tmp_path / f"old-{turn}")
            else:
                for entry in (location / "default").iterdir():
                    if entry.is_dir():
                        shutil.rmtree(entry, ignore_errors=True)
            value = f"turn-{turn}"
            until(lambda value=value: all_see(value), f"all to see {value}")  # type: ignore[misc]
        cache.set("ask", "stop")
        assert running.results() == [None] * 4
    finally:
        cache.close()


def test_a_process_meets_the_others_in_its_very_next_request(
    settings: Settings, tmp_path: Path
) -> None:
    location = tmp_path / "cache"
    cache = ours(settings, location)
    cache.set("key", "old")
    location.rename(tmp_path / "aside")
    cache.close()
    assert cache.get("key") is None
    assert forked(settings).run(_first, 1, processes=1) == [True]
    assert cache.get("mine-1") == 1
    # A write checks the directory first, even in the middle of a request.
    location.rename(tmp_path / "aside again")
    cache.set("key", "new")
    assert len(databases(location)) == 1


def test_with_the_stock_backend_there_are_two_truths(settings: Settings, tmp_path: Path) -> None:
    location = tmp_path / "cache"
    cache = stock(settings, location)
    cache.set("key", "old")
    location.rename(tmp_path / "aside")
    assert forked(settings).run(_first_anew, str(location), processes=1) == [True]
    assert cache.get("mine-1") is None
    assert cache.get("key") == "old"
    cache.close()


def test_everything_is_for_its_owner_alone(settings: Settings, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = ours(settings, tmp_path / "a" / "b")
        cache.set_many({f"key-{n}": n for n in range(50)})
        cache.set("large", b"x" * LARGE)
    finally:
        os.umask(before)
    found = {
        (path.is_dir(), oct(stat.S_IMODE(path.stat().st_mode)))
        for path in (tmp_path / "a" / "b").rglob("*")
    }
    assert found == {(True, "0o700"), (False, "0o600")}
    names = {path.name for path in (tmp_path / "a" / "b").rglob("cache.db*")}
    assert names == {"cache.db", "cache.db-wal", "cache.db-shm"}


def test_a_directory_that_others_may_write_to_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path / "open")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StoreUnavailable, match=r"world-writable \(mode 0777\); run: chmod go-w"):
        cache.get("key")
    (tmp_path / "open").chmod(0o700)
    (tmp_path / "open" / "default").mkdir()
    (tmp_path / "open" / "default").chmod(0o777)
    with pytest.raises(StoreUnavailable, match=r"world-writable \(mode 0777\)"):
        cache.set("key", 1)
    (tmp_path / "open" / "default").chmod(0o700)
    cache.set("key", 1)  # without a restart
    assert cache.get("key") == 1


def test_each_alias_has_a_directory_and_equal_entries_share_one(
    settings: Settings, tmp_path: Path
) -> None:
    location = str(tmp_path / "cache")
    entry = {"BACKEND": "cacheapp.backends.DiskCache", "LOCATION": location}
    settings.CACHES = {
        "default": entry,
        "same": entry,
        "../other": {**entry, "KEY_PREFIX": "other"},
    }
    for alias in settings.CACHES:
        caches[alias].set("key", alias)
    assert caches["default"].get("key") == "same"
    assert caches["../other"].get("key") == "../other"
    DiskCache(location, {"KEY_PREFIX": "mine:too"}).set("key", "by hand")
    caches["same"].clear()
    assert caches["default"].get("key") is None
    assert caches["../other"].get("key") == "../other"
    assert DiskCache(location, {"KEY_PREFIX": "mine:too"}).get("key") == "by hand"
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert names == ["%2E.%2Fother@other", "by-hand-mine%3Atoo", "default"]


@pytest.mark.parametrize("exists", [False, True], ids=["new", "there"])
def test_a_path_and_a_link_to_it_are_one_location(
    settings: Settings, tmp_path: Path, *, exists: bool
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var-run").symlink_to("run")
    entry = {"BACKEND": "cacheapp.backends.DiskCache"}
    settings.CACHES = {
        "default": {**entry, "LOCATION": str(tmp_path / "run" / "cache")},
        "path": {**entry, "LOCATION": tmp_path / "run" / "cache"},
        "link": {**entry, "LOCATION": str(tmp_path / "var-run" / "cache")},
        "other": {**entry, "LOCATION": str(tmp_path / "run" / "other")},
    }
    if exists:
        caches["default"].get("key")
    caches["link"].set("key", "one truth")
    found = [caches[alias].get("key") for alias in settings.CACHES]
    assert found == ["one truth", "one truth", "one truth", None]
    assert [path.name for path in (tmp_path / "run" / "cache").iterdir()] == ["default"]


@pytest.mark.parametrize("prefix", ["staging", "ж" * 200], ids=["short", "long"])
def test_projects_with_one_location_and_alias_are_separated_by_their_prefix(
    settings: Settings, tmp_path: Path, prefix: str
) -> None:
    entry = {"BACKEND": "cacheapp.backends.DiskCache", "LOCATION": str(tmp_path)}
    for other in ({"OPTIONS": {"shards": 8}}, {"OPTIONS": {"shards": 4}}):
        settings.CACHES = {"default": {**entry, "KEY_PREFIX": "production"}}
        caches["default"].set("key", "kept")
        settings.CACHES = {"default": {**entry, "KEY_PREFIX": prefix, **other}}
        caches["default"].set("key", "theirs")
        assert caches["default"].get("key") == "theirs"
        caches["default"].clear()
        assert caches["default"].get("key") is None
        settings.CACHES = {"default": {**entry, "KEY_PREFIX": "production"}}
        assert caches["default"].get("key") == "kept"


def test_entries_of_another_number_of_shards_never_come_back(
    settings: Settings, tmp_path: Path
) -> None:
    ours(settings, tmp_path, shards=4).set("key", "old")
    ours(settings, tmp_path, shards=2).set("other", 1)
    assert ours(settings, tmp_path, shards=4).get("key") is None
    assert {path.name[:2] for path in shards(tmp_path)} == {"4x"}


def test_no_two_databases_ever_have_the_same_path(settings: Settings, tmp_path: Path) -> None:
    """SQLite finds the WAL by path, perhaps only after the directory was replaced."""
    cache = ours(settings, tmp_path, shards=1)
    seen = set()
    for _ in range(3):
        cache.set("key", "value")
        (shard,) = shards(tmp_path)
        seen.add(shard.resolve())
        shutil.rmtree(tmp_path / "default")
        cache.close()
    assert len(seen) == 3


def test_a_link_that_leads_elsewhere_is_not_followed(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path / "cache", shards=1)
    cache.set("key", "value")
    (shard,) = shards(tmp_path / "cache")
    shard.resolve().rename(tmp_path / "elsewhere")
    shard.unlink()
    shard.symlink_to(tmp_path / "elsewhere")
    assert forked(settings).run(work.get, "key", processes=1) == ["missing"]
    assert shard.resolve().parent == tmp_path / "cache" / "default"


MIB = 2**20


def _write_much(cache: Any, mib: int, size: int) -> tuple[int, float]:
    """Write values of about `size` bytes.

    Return the largest size of the directory seen, and the seconds that the longest write took.
    """
    location = Path(cache.location)
    worst, longest_s = 0, 0.0
    for n in range(mib * MIB // size):
        began_s = clock.monotonic_s()
        cache.set(f"key-{n}", os.urandom(size), timeout=None)
        longest_s = max(longest_s, clock.monotonic_s() - began_s)
        if n % 50 == 0:
            worst = max(worst, bytes_under(location))
    return max(worst, bytes_under(location)), longest_s


@pytest.mark.parametrize("size", [2_000, 60_000], ids=["rows", "files"])
def test_the_whole_directory_stays_within_its_size_limit(
    settings: Settings, tmp_path: Path, size: int
) -> None:
    cache = ours(settings, tmp_path, size_limit=8 * MIB, shards=2)
    found = forked(settings).run(_write_much, 10, size, processes=2)
    worst, longest_s = (max(each) for each in zip(*found, strict=True))
    # A writer that is suspended in the middle of a write keeps the WAL from being restarted: for a
    # moment often, and where the machine pauses it, for as long as that.
    assert worst <= 1.6 * 8 * MIB or longest_s > 1
    assert bytes_under(tmp_path) > 2 * MIB, "and it is used"
    cache.set("large", os.urandom(2 * MIB))
    assert cache.get("large") is not None
    assert bytes_under(tmp_path) <= 1.1 * 8 * MIB


def test_with_the_stock_backend_the_directory_outgrows_its_limit(
    settings: Settings, tmp_path: Path
) -> None:
    cache = stock(settings, tmp_path, size_limit=8 * MIB)
    cache.close()
    worst = 0
    for n in range(16 * MIB // 2000):
        cache.set(f"key-{n}", os.urandom(2000), timeout=None)
        if n % 200 == 0:
            worst = max(worst, bytes_under(tmp_path))
    cache.close()
    assert worst > 1.5 * 8 * MIB


def test_the_oldest_entries_are_evicted_first_and_expired_ones_before_them(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path, size_limit=2 * MIB, shards=1)
    cache.set("short", b"x" * 10_000, timeout=0.001)
    for n in range(400):
        cache.set(f"key-{n}", os.urandom(10_000), timeout=None)
    kept = [n for n in range(400) if cache.has_key(f"key-{n}")]
    assert kept == list(range(kept[0], 400))
    assert kept[0] > 100
    assert not cache.has_key("short")


def test_room_is_made_for_the_newest_entry_not_by_it(settings: Settings, tmp_path: Path) -> None:
    cache = ours(settings, tmp_path, size_limit=4 * MIB, shards=1)
    for n in range(20):
        cache.set(f"key-{n}", os.urandom(MIB), timeout=None)
        assert cache.has_key(f"key-{n}")
    assert cache.has_key("key-18"), "and not only the newest is kept"


def test_a_value_larger_than_a_shard_is_refused_and_evicts_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path, size_limit=MIB, shards=1)
    cache.set("key", "kept")
    with pytest.raises(Exception, match=r"has \d+ bytes; the largest has 753664"):
        cache.set("huge", b"x" * MIB)
    assert cache.get("key") == "kept"
    assert value_files(tmp_path) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"OPTIONS": {"MAX_ENTRIES": 100}}, "limited in bytes.*size_limit"),
        ({"OPTIONS": {"CULL_FREQUENCY": 3}}, "limited in bytes.*size_limit"),
        ({"SHARDS": 4}, r"'SHARDS' is not a key beside OPTIONS; expected OPTIONS\['shards'\]"),
        ({"DATABASE_TIMEOUT": 1}, r"expected OPTIONS\['database_timeout'\]"),
        ({"OPTIONS": {"size_limit": 2**20}}, "at least 524288 for each of the 8 shards"),
        (
            {
                "OPTIONS": {"shards": 2},
                "KEY_FUNCTION": "tests.integration.backends.disk.parts.own_key",
            },
            "expected 1 with a KEY_FUN",
        ),
        ({"OPTIONS": {"eviction_policy": "random"}}, "expected one of 'none'"),
        ({"OPTIONS": {"database_timeout": 0}}, "a number of seconds above 0"),
        ({"OPTIONS": {"timeout": 1}}, "is not an option"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(
    tmp_path: Path, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsRefused, match=message):
        DiskCache(str(tmp_path), params).get("key")


def test_a_location_that_diskcache_would_expand_is_refused() -> None:
    for location in ("~/cache", "", None):
        with pytest.raises(OptionsRefused, match="LOCATION is"):
            DiskCache(location, {}).get("key")
