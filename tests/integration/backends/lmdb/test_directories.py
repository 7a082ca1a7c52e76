"""Test the files of LMDBCache: layout, permissions, sharing, removal and damage."""

import multiprocessing
import os
import shutil
import stat
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import lmdb
import pytest
from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.backends import LMDBCache
from cacheapp.backends.lmdb import directory, open_environment
from cacheapp.backends.lmdb.key_encoding import KeyEncoder
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.local.boot import boot_id
from cacheapp.errors import OptionsRefused, StoreUnavailable
from tests.contract.clients import Clients, calls
from tests.integration.backends.children import end_of, in_child
from tests.integration.backends.lmdb.parts import MIB, environment_of, environments, ours

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_all_space_is_preallocated_and_within_the_limit(settings: Settings, tmp_path: Path) -> None:
    ours(settings, tmp_path).set("key", 1)
    (made,) = environments(tmp_path)
    files = {path.name: path.stat() for path in made.iterdir()}
    assert set(files) == {"data.mdb", "lock.mdb", "reference-bits"}
    assert all(found.st_blocks * 512 >= found.st_size for found in files.values())
    assert 3.9 * MIB < sum(found.st_size for found in files.values()) <= 4 * MIB
    assert {stat.S_IMODE(found.st_mode) for found in files.values()} == {0o600}
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700


def test_prefixes_in_one_directory_do_not_see_each_other(
    settings: Settings, tmp_path: Path
) -> None:
    first = ours(settings, tmp_path, prefix="a")
    other = ours(settings, tmp_path, alias="other", prefix="a:1")
    first.set("1:key", "first")
    other.set("key", "other")  # the same final key
    assert (first.get("1:key"), other.get("key")) == ("first", "other")
    first.clear()
    assert (first.get("1:key"), other.get("key")) == (None, "other")
    assert len(environments(tmp_path)) == 1


def test_clear_needs_no_default_key_function(settings: Settings, tmp_path: Path) -> None:
    ours(settings, tmp_path).set("key", "kept")
    entry = {
        **settings.CACHES["default"],
        "KEY_FUNCTION": "tests.integration.backends.disk.parts.own_key",
    }
    settings.CACHES = {**settings.CACHES, "own": entry}
    caches["own"].set("key", "gone")
    caches["own"].clear()
    assert (caches["own"].get("key"), caches["default"].get("key")) == (None, "kept")


@pytest.mark.parametrize("name", ["size_limit", "MAX_ENTRIES"])
def test_one_directory_has_one_limit(settings: Settings, tmp_path: Path, name: str) -> None:
    ours(settings, tmp_path, prefix="a", MAX_ENTRIES=1000)
    other = ours(
        settings, tmp_path, alias="other", prefix="b", **{"MAX_ENTRIES": 1000, name: 2 * MIB}
    )
    with pytest.raises(OptionsRefused, match=rf"OPTIONS\['{name}'\] is {2 * MIB}, but"):
        other.get("key")


def test_caches_outside_the_settings_must_agree_too(settings: Settings, tmp_path: Path) -> None:
    LMDBCache(str(tmp_path), {"OPTIONS": {"size_limit": 2 * MIB}})
    with pytest.raises(OptionsRefused, match="one directory has one size_limit"):
        LMDBCache(str(tmp_path), {"OPTIONS": {"size_limit": 3 * MIB}})


def test_a_process_with_other_limits_replaces_the_environment_for_all(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", "older")
    other = {**settings.CACHES["default"], "OPTIONS": {"size_limit": 2 * MIB}}
    # Spawned, like the process of a new deployment: a forked one has the options of its parent.
    context = cast("Any", multiprocessing.get_context("spawn"))
    newer = Clients(context, {"default": other}, settings.CACHEAPP)
    (seen,) = newer.start([calls(_set_and_get_older)]).results()
    assert seen is None
    assert cache.get("newer") == "value"
    (made,) = environments(tmp_path)
    assert f"-{2 * MIB}-" in made.name


def _set_and_get_older(cache: LMDBCache) -> object:
    cache.set("newer", "value")
    return cache.get("key")


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_removed_or_replaced_directory_is_noticed_within_a_request(
    settings: Settings, tmp_path: Path, how: str
) -> None:
    cache = ours(settings, tmp_path / "cache")
    cache.set("key", "old")
    (tmp_path / "cache").rename(tmp_path / "gone")
    if how == "replaced":
        assert end_of(in_child(lambda: cache.set_many({"key": "new"}) == [])) == 0
    cache.close()  # the end of a request
    assert cache.get("key") == (None if how == "removed" else "new")
    cache.set("here", 1)
    assert end_of(in_child(lambda: cache.get("here") == 1)) == 0


@pytest.mark.parametrize(
    ("module", "removed"),
    [(directory, "cache"), (open_environment, "cache"), (open_environment, "data file")],
    ids=["as it is created", "as it is opened", "its data alone"],
)
def test_an_operation_begins_again_if_the_environment_is_removed(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    removed: str,
) -> None:
    cache = ours(settings, tmp_path / "cache")
    opened, places = directory.open_environment, list[Path]()

    def open_after_removal(path: Path, limits: SizeLimits, *, writemap: bool) -> lmdb.Environment:
        if not places and removed == "cache":
            shutil.rmtree(tmp_path / "cache")
        elif not places:
            (path / "data.mdb").unlink()
        places.append(path)
        return opened(path, limits, writemap=writemap)

    monkeypatch.setattr(module, "open_environment", open_after_removal)
    cache.set("key", 1)
    assert cache.get("key") == 1
    assert len(places) == 2
    assert end_of(in_child(lambda: cache.get("key") == 1)) == 0


def test_an_environment_of_another_boot_is_removed_unread(
    settings: Settings, tmp_path: Path
) -> None:
    assert end_of(in_child(lambda: ours(settings, tmp_path).add("key", "suspect"))) == 0
    (made,) = environments(tmp_path)
    made.rename(made.with_name(made.name.replace(boot_id(), "0f9b2f5e-another-boot")))
    cache = ours(settings, tmp_path)
    assert cache.get("key") is None
    assert [path.name.startswith(boot_id()) for path in environments(tmp_path)] == [True]


@pytest.mark.parametrize("damage", ["garbage", "cut short", "missing"])
def test_a_damaged_environment_is_replaced(
    settings: Settings, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert end_of(in_child(lambda: ours(settings, tmp_path).add("key", "old"))) == 0
    (made,) = environments(tmp_path)
    data = made / "data.mdb"
    if damage == "garbage":
        with data.open("r+b") as file:
            file.write(b"\xa5" * 8192)
    elif damage == "missing":
        data.unlink()
    else:
        os.truncate(data, 8192)
    cache = ours(settings, tmp_path)
    assert cache.get("key") is None
    cache.set("key", "new")
    assert cache.get("key") == "new"
    if damage == "garbage":
        assert "the cache starts empty" in caplog.text
        assert len(list(tmp_path.glob("lmdb/damaged-*"))) == 1


def test_a_running_process_leaves_an_environment_that_was_set_aside(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", "old")
    directory = environment_of(cache).directory
    (made,) = environments(tmp_path)
    with directory.locked():
        directory.set_aside(made, "a test")
    assert cache.get("key") is None  # immediately, without the end of a request
    cache.set("key", "new")
    assert end_of(in_child(lambda: cache.get("key") == "new")) == 0


def test_a_location_that_others_can_write_to_is_refused(settings: Settings, tmp_path: Path) -> None:
    location = tmp_path / "cache"
    location.mkdir()
    location.chmod(0o777)
    cache = ours(settings, location)
    with pytest.raises(StoreUnavailable, match="world-writable"):
        cache.get("key")
    location.chmod(0o700)
    assert cache.get("key") is None


def test_an_environment_that_others_can_write_to_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", "value")
    cache.close()
    environment_of(cache).close()
    (made,) = environments(tmp_path)
    made.chmod(0o770)
    with pytest.raises(StoreUnavailable, match=r"has mode 0770, expected \d+ and 0700"):
        cache.get("key")
    made.chmod(0o700)
    assert cache.get("key") == "value"


def test_lock_tokens_increase_across_clear_and_loss_of_all_entries(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    with cache.lock("name") as lock:
        first = lock.token
    cache.clear()
    environment = environment_of(cache)
    cache.get("key")
    assert environment.discard_all()  # like a reboot
    with cache.lock("name") as lock:
        assert (lock.token or 0) > (first or 0)


def _write_raw(env: OpenEnvironment, transaction: Transaction, name: bytes, raw: bytes) -> None:
    transaction.put(name, raw, db=env.entries)


@pytest.mark.parametrize("raw", [b"", b"\x09", b"\x09" * 100], ids=["none", "short", "unknown"])
def test_an_entry_of_another_format_is_a_miss(
    settings: Settings, tmp_path: Path, raw: bytes
) -> None:
    cache = ours(settings, tmp_path)
    name = KeyEncoder("", "").name(cache.make_key("key"))
    environment_of(cache).write(_write_raw, name, raw)
    assert cache.get("key") is None
    assert "key" not in cache
    assert cache.get_many(["key"]) == {}
    assert cache.keys("*") == []
    assert cache.add("key", "new") is True
    assert cache.get("key") == "new"


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_long_keys_are_listed_and_removed_by_their_full_keys(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    keys = ["long" + "x" * 600, "long" + "y" * 5000, "short"]
    cache.set_many(dict.fromkeys(keys, 1))
    assert sorted(cache.keys("*")) == sorted(keys)
    assert sorted(cache.iter_keys("long*", itersize=1)) == sorted(keys[:2])
    assert cache.keys("l*" + "x" * 550) == keys[:1]
    assert cache.delete_pattern("long*") == 2
    assert cache.keys("*") == ["short"]


@pytest.mark.parametrize("backend", ["LMDBCache", "DiskCache"])
def test_no_step_of_the_wall_clock_moves_the_deadline_of_a_lock(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    location = str(tmp_path / "cache")
    settings.CACHES = {"default": {"BACKEND": f"cacheapp.backends.{backend}", "LOCATION": location}}
    cache: Any = caches["default"]
    wall_s, boot_s = clock.wall_s, clock.boot_s
    held = cache.lock("lock", timeout=100)
    assert held.acquire()
    tokens = [held.token]
    for step in (10_000, -10_000):
        monkeypatch.setattr(clock, "wall_s", lambda step=step: wall_s() + step)
        assert held.owned()
        assert not cache.lock("lock").acquire(blocking=False)
        assert held.extend()
    monkeypatch.setattr(clock, "boot_s", lambda: boot_s() + 101)
    assert not held.owned()
    with cache.lock("lock") as later:
        tokens.append(later.token)
    assert tokens == sorted(tokens)


def test_a_step_of_the_wall_clock_neither_expires_nor_revives_an_entry(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", 1, timeout=100)
    wall_s, boot_s = clock.wall_s, clock.boot_s
    for step in (10_000, -10_000):
        monkeypatch.setattr(clock, "wall_s", lambda step=step: wall_s() + step)
        assert cache.get("key") == 1
        assert 90 < (cache.ttl("key") or 0) <= 100
    monkeypatch.setattr(clock, "boot_s", lambda: boot_s() + 101)
    assert cache.get("key") is None
    assert cache.ttl("key") == 0
