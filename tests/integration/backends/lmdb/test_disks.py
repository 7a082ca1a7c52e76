"""Test LMDBCache on small disks, under memory limits and without descriptors."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp.backends.lmdb import directory
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.local import pid_namespace
from cacheapp.errors import StoreUnavailable
from tests.cgroups import in_cgroup, memory_cgroup
from tests.integration.backends.lmdb.cache_process import (
    CACHE,
    ROOT,
    CacheProcess,
    running,
    small_disk,
)
from tests.integration.backends.lmdb.parts import MIB, environment_of, ours, stopped_inside

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_a_process_that_cannot_reserve_its_limit_harms_no_other(tmp_path: Path) -> None:
    old = CacheProcess(tmp_path / "cache", 4 * MIB)
    new = CacheProcess(tmp_path / "cache", 2**50)
    with running(old, new):
        assert old("cache.set('key', 'kept')") == "None"
        for call in ("cache.get('key')", "cache.set('key', 1)", "cache.get('key')"):
            assert "cannot hold a cache of 1125899906842624 bytes" in new(call)
            assert old("cache.get('key')") == "'kept'"


def test_a_lower_limit_that_does_not_fit_beside_the_old_one_waits_for_the_old_processes(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "11m") as disk:
        old = CacheProcess(disk / "cache", 8 * MIB)
        new = CacheProcess(disk / "cache", 6 * MIB)
        last = CacheProcess(disk / "cache", 6 * MIB)
        with running(old, new, last):
            assert old("cache.set('key', 'kept')") == "None"
            assert new("cache.get('key')") == "'kept'"
            assert int(new("cache.set('key', 'new') or cache.stats()['bytes_reserved']")) > 7 * MIB
            assert old("cache.get('key')") == "'new'"
            old.end()
            assert "stays in use until they have ended" in new.end()
            assert last("cache.set('key', 1) or cache.get('key')") == "1"
            assert int(last("cache.stats()['bytes_reserved']")) < 7 * MIB


def test_a_disk_that_fills_up_during_the_creation_is_an_error_of_the_cache(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_check_space", lambda _path, _limits: None)  # it had passed
    with small_disk(tmp_path / "disk", "128k") as disk:
        cache = ours(settings, disk / "cache")
        for filled in range(0, 120, 4):
            (disk / "filled").write_bytes(bytes(1024 * filled))
            with pytest.raises(StoreUnavailable, match="cannot hold a cache of"):
                cache.set("key", 1)
            assert not list((disk / "cache" / "lmdb").glob("making-*"))
            (disk / "filled").unlink()


def test_a_process_that_waits_for_the_lock_does_not_keep_the_old_environment(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "11m") as disk:
        old = CacheProcess(disk / "cache", 8 * MIB)
        new = CacheProcess(disk / "cache", 6 * MIB)
        with running(old, new):
            assert old("cache.set('key', 1)") == "None"
            old.end()
            waiting = pid_namespace.Claim(disk / "cache" / "lmdb")
            assert int(new("cache.stats()['bytes_reserved']")) < 7 * MIB
            waiting.release()


def test_a_discard_without_descriptors_raises_the_caches_own_error(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(StoreUnavailable, match="Too many open files"):
            environment_of(cache).discard_all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert cache.get("key") == 1


def test_without_a_free_descriptor_the_cache_closes_and_forks(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for work in (environment_of(cache).close, environment_of(cache).before_fork):
        assert cache.get("key") == 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            work()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert environment_of(cache).current is None
        claim = pid_namespace.Claim(tmp_path / "lmdb")
        assert not claim.is_open_elsewhere()
        claim.release()
    environment_of(cache).after_fork_in_parent()
    assert cache.get("key") == 1


def test_writes_go_on_in_a_smaller_environment_beside_a_stopped_reader(
    settings: Settings, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "6m") as disk:
        cache = ours(settings, disk / "cache")
        cache.set("key", 1)
        with stopped_inside(cache, writing=False):
            failures = 0
            for number in range(600):
                try:
                    cache.set(f"key-{number % 10}", os.urandom(9000))
                except Exception:  # noqa: BLE001 (counted)
                    failures += 1
            assert failures == 0
            cache.set("key", 2)
            assert cache.get("key") == 2
        cache.close()
        caches["default"].close()


def test_a_value_too_large_for_a_smaller_environment_displaces_nothing(
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
    cache.set_many({f"key-{number}": number for number in range(100)})
    cache.set("large", os.urandom(2_000_000))
    assert cache.get("large") is None
    assert len(cache.get_many([f"key-{number}" for number in range(100)])) == 100


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")  # noqa: S108
def test_a_cache_in_memory_beyond_the_cgroups_limit_is_refused_not_killed() -> None:
    location = Path("/dev/shm") / f"cacheapp-test-{os.getpid()}"  # noqa: S108
    use = (
        "try:\n    cache.set('key', 1)\nexcept CacheappError as exc:\n    print(exc)\n"
        "else:\n    print(cache.get('key'))\n"
    )
    try:
        with memory_cgroup(150 * MIB) as group:
            found = []
            for size_limit in (256 * MIB, 32 * MIB):
                command = [sys.executable, "-c", "import sys\n" + CACHE + use]
                command += [str(location / "c"), str(location / "s"), str(size_limit)]
                done = subprocess.run(
                    in_cgroup(group, command), capture_output=True, text=True, check=False, cwd=ROOT
                )
                assert done.returncode == 0, (done.returncode, done.stderr)
                found.append(done.stdout.strip())
            shutil.rmtree(location, ignore_errors=True)
    finally:
        shutil.rmtree(location, ignore_errors=True)
    assert "cannot hold a cache of 268435456 bytes" in found[0]
    assert "the limit of this process's cgroup leaves" in found[0]
    assert found[1] == "1"
