"""Test LMDBCache among containers, other boots, and several names of one directory."""

import os
import shutil
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp.backends.local import pid_namespace
from cacheapp.backends.local.boot import boot_id
from cacheapp.processes.waiting import until
from tests.integration.backends.lmdb.cache_process import (
    CACHE,
    CacheProcess,
    run_with_cache,
    running,
)
from tests.integration.backends.lmdb.parts import MIB, environment_of, environments, ours
from tests.required import skip_or_fail


def test_a_second_pid_namespace_is_refused_while_the_first_one_lives(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid():
        skip_or_fail("needs root and unshare; run as root: make test")
    container = [str(unshare), "--pid", "--fork", "--kill-child", "--mount-proc"]
    first = CacheProcess(tmp_path / "cache", 4 * MIB, *container)
    second = CacheProcess(tmp_path / "cache", 4 * MIB, *container)
    with running(first, second):
        assert first("cache.set('key', os.getpid())") == "None"
        assert "StoreUnavailable" in (said := second("cache.get('key')"))
        assert "another PID namespace" in said
        assert "LOCATION of its own" in said
        pid = first("cache.get('key')")
        assert pid == first("os.getpid()")
        first.process.kill()
        first.process.wait()
        until(lambda: second("cache.get('key')") == pid, "the first to be gone")
        assert second("cache.set('key', 'second') or cache.get('key')") == "'second'"


def test_a_process_with_another_boot_id_removes_nothing_while_this_one_lives(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(settings, tmp_path / "cache")
    cache.set("key", "kept")
    script = CACHE.replace(
        "from cacheapp.backends import",
        "from cacheapp.backends.local import boot, pid_namespace\n"
        "from cacheapp.backends.lmdb import directory\n"
        "boot.boot_id = pid_namespace.boot_id = directory.boot_id = lambda: 'other-boot'\n"
        "from cacheapp.backends import",
    )
    done = run_with_cache(script + "cache.set('key', 'lost')", tmp_path)
    assert "another PID namespace" in done.stderr
    assert cache.get("key") == "kept"
    assert [path.name.startswith(boot_id()) for path in environments(tmp_path / "cache")] == [True]
    monkeypatch.undo()


def test_files_of_namespaces_that_are_gone_do_not_pile_up(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "lmdb").mkdir(mode=0o700)
    for number in range(5):
        (tmp_path / "lmdb" / f"namespace-gone-{number}").touch()
    ours(settings, tmp_path).set("key", 1)
    names = [path.name for path in (tmp_path / "lmdb").glob("namespace-*")]
    assert names == [f"namespace-{pid_namespace.namespace_name()}"]


def test_a_removed_claim_is_taken_again_and_nothing_is_lost(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", "kept")
    (claim,) = (tmp_path / "lmdb").glob("namespace-*")
    claim.unlink()
    environment_of(cache).end_request()
    assert cache.get("key") == "kept"
    assert claim.exists()


def test_what_a_killed_process_of_our_pid_was_making_is_replaced(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", 1)
    for suffix in ("", "-old"):
        stale = tmp_path / "lmdb" / f"making-{os.getpid()}{suffix}"
        stale.mkdir()
        (stale / "data.mdb").touch()
    assert environment_of(cache).discard_all()
    assert cache.get("key") is None
    assert not list((tmp_path / "lmdb").glob("making-*"))


def test_a_link_and_its_target_are_one_cache(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var-run").symlink_to("run")
    first = ours(settings, tmp_path / "run" / "cache")
    second = ours(settings, tmp_path / "var-run" / "cache", alias="second")
    first.set("key", "one truth")
    assert second.get("key") == "one truth"
    assert second.incr("number", 1) if second.add("number", 0) else None
    assert first.get("number") == 1
