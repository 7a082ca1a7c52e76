"""Test a larger `size_limit` while processes run that have the old one, and kills during the change."""

import itertools
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from cacheapp.backends import LMDBCache
from cacheapp.backends.lmdb import directory
from cacheapp.backends.lmdb.growth import (
    BITS_FILE,
    DATA_FILE,
    LOCK_FILE,
    move_files,
    moving,
    opening,
)
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.reference_bits import retire
from cacheapp.processes.waiting import until
from tests.integration.backends.children import end_of, in_child
from tests.integration.backends.lmdb.cache_process import CacheProcess, running, small_disk
from tests.integration.backends.lmdb.parts import MIB, environment_of, environments, ours
from tests.integration.interrupts import place_in

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

_KILLED = 9
_CHANGES = frozenset(["os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "fcntl.flock"])
_FILL = "[cache.set(f'large-{n}', bytes([n]) * 16_000) for n in range(75)] and None"
_FILLED = "[n for n in range(75) if cache.get(f'large-{n}') != bytes([n]) * 16_000]"


def test_a_larger_limit_keeps_the_entries_on_a_disk_that_cannot_hold_both(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2560k") as disk:
        old = CacheProcess(disk / "cache", MIB)
        idle = CacheProcess(disk / "cache", MIB)
        new = CacheProcess(disk / "cache", 2 * MIB)
        with running(old, idle, new):
            assert old("cache.set('key', 'kept')") == "None"
            assert idle("cache.get('key')") == "'kept'"
            assert new("cache.get('key')") == "'kept'"
            assert int(new("cache.stats()['bytes_reserved']")) > 1.8 * MIB
            assert new(_FILL) == "None"  # beyond the end of the old map
            assert old("cache.set('old', 1)") == "None"
            assert old(_FILLED) == idle(_FILLED) == new(_FILLED) == "[]"
            assert int(old("cache.stats()['bytes_reserved']")) > 1.8 * MIB
            assert idle("cache.incr('old')") == "2"
            assert new("cache.get_many(['key', 'old'])") == "{'key': 'kept', 'old': 2}"
            assert new("cache.stats()['evictions']") == "0"


def test_an_operation_goes_on_if_the_files_grow_after_it_has_checked_the_directory(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(settings, tmp_path, size_limit=MIB)
    cache.set("key", 1)
    environment = environment_of(cache)
    checked = environment._ensure_open  # noqa: SLF001 (what comes between two lines of it)
    new = CacheProcess(tmp_path, 2 * MIB)
    with running(new):

        def grown() -> Any:
            found = checked()
            if environment.limits.size_limit == found.limits.size_limit:
                assert new(_FILL) == "None"  # beyond the end of the map that was just checked
            return found

        monkeypatch.setattr(environment, "_ensure_open", grown)
        for work in (lambda: cache.incr("key"), lambda: cache.get("key")):
            environment.end_request()
            assert work() == 2
        assert cache.stats()["bytes_reserved"] > 1.8 * MIB


def _killed_at(step: int, location: Path) -> int:
    """Have a process with twice the limit open the cache, and die at a change of the directory."""
    numbers = itertools.count()

    def kill(event: str, args: tuple[Any, ...]) -> None:
        opened = event == "open" and str(args[0]).endswith((BITS_FILE, DATA_FILE))
        if (opened or event in _CHANGES) and next(numbers) == step:
            os._exit(_KILLED)

    def work() -> bool:
        cache = LMDBCache(str(location), {"OPTIONS": {"size_limit": 2 * MIB}})
        sys.addaudithook(kill)
        return bool(cache.get("key") == "kept")

    return end_of(in_child(work))


def test_a_kill_at_any_step_of_the_change_leaves_a_cache_that_all_processes_use(
    tmp_path: Path,
) -> None:
    old, new = (CacheProcess(tmp_path / "unused", size) for size in (MIB, 2 * MIB))
    seen = set()
    with running(old, new):
        for step in itertools.count():
            location = tmp_path / str(step)
            for process in (old, new):
                options = "{'OPTIONS': {'size_limit': size_limit}}"
                created = f"LMDBCache({str(location)!r}, {options})"
                assert process(f"globals().update(cache={created})") == "None"
            assert old("cache.set('key', 'kept')") == "None"
            end = _killed_at(step, location)
            seen.add(old("cache.get('key')"))
            assert old("cache.set('after', 1)") == "None"
            assert new(_FILL) == "None"  # beyond the end of the old map
            assert old("cache.incr('after')") == "2"
            assert old(_FILLED) == new(_FILLED) == "[]"
            in_use = [path for path in environments(location) if "making-" not in path.name]
            assert len(in_use) == 1
            if end == 0:
                break
            assert end == _KILLED
    assert step > 12
    assert seen == {"'kept'", "None"}


def test_what_a_killed_process_had_retired_is_replaced(settings: Settings, tmp_path: Path) -> None:
    assert end_of(in_child(lambda: ours(settings, tmp_path).add("key", "old"))) == 0
    (made,) = environments(tmp_path)
    retire(made / BITS_FILE)
    cache = ours(settings, tmp_path)
    again = in_child(lambda: cache.get("key") is None and cache.add("key", "new"))
    assert end_of(again, within_s=60) == 0
    assert cache.get("key") == "new"


def test_files_that_a_process_is_opening_with_the_old_size_do_not_grow(
    settings: Settings, tmp_path: Path
) -> None:
    assert end_of(in_child(lambda: ours(settings, tmp_path).add("key", "old"))) == 0
    (made,) = environments(tmp_path)
    size = (made / DATA_FILE).stat().st_size
    new = CacheProcess(tmp_path, 8 * MIB)
    with running(new), (made / DATA_FILE).open("rb") as data, opening(made):
        with pytest.raises(BlockingIOError), moving(made, wait_s=0):
            pass
        assert new("cache.get('key')") == "None"  # in files of its own
        assert int(new("cache.stats()['bytes_reserved']")) > 7 * MIB
        assert os.fstat(data.fileno()).st_size == size


def test_a_move_waits_for_a_process_that_is_opening_the_files(
    settings: Settings, tmp_path: Path
) -> None:
    assert end_of(in_child(lambda: ours(settings, tmp_path).add("key", "old"))) == 0
    (made,) = environments(tmp_path)
    moved = []

    def move() -> None:
        with moving(made, wait_s=100):
            moved.append(opened.is_set())

    opened = threading.Event()
    mover = threading.Thread(target=move)
    with opening(made):
        mover.start()
        until(lambda: place_in(mover.ident or 0, "_lock"), "the move to wait")
        opened.set()
    mover.join(100)
    assert moved == [True]


def test_only_the_new_end_of_a_file_is_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _fd, *part: reserved.append(part))
    environment, into = tmp_path / "old", tmp_path / "new"
    environment.mkdir()
    into.mkdir()
    for name in (DATA_FILE, LOCK_FILE, BITS_FILE):
        (environment / name).touch()
    old, larger = SizeLimits(MIB, None), SizeLimits(2 * MIB, None)
    move_files(environment, into, old, larger)
    assert reserved[-1] == (old.map_bytes, larger.map_bytes - old.map_bytes)


def test_an_environment_that_had_to_be_smaller_grows_for_a_process_that_finds_room(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(settings, tmp_path, size_limit=8 * MIB)
    cache.set("key", 1)
    check = directory._check_space  # noqa: SLF001 (the disk has no room for more)

    def small(path: Path, limits: SizeLimits) -> None:
        if limits.size_limit > 2 * MIB:
            raise directory._NoSpace  # noqa: SLF001
        check(path, limits)

    monkeypatch.setattr(directory, "_check_space", small)
    assert environment_of(cache).discard_all()
    cache.set("key", 2)
    assert cache.stats()["bytes_reserved"] < 3 * MIB
    new = CacheProcess(tmp_path, 8 * MIB)
    with running(new):
        assert new("cache.get('key')") == "2"
        assert cache.get("key") == 2
        assert cache.stats()["bytes_reserved"] > 7 * MIB
