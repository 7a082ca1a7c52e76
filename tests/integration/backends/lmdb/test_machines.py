"""Test LMDBCache among containers, daemons, forks by C code, small disks and memory limits."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp.backends.lmdb import directory
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.local import pid_namespace
from cacheapp.backends.local.boot import boot_id
from cacheapp.errors import StoreUnavailable
from cacheapp.processes.waiting import until
from tests.integration.backends.lmdb.parts import (
    MIB,
    end_of,
    environment_of,
    environments,
    ours,
    stopped_inside,
)
from tests.integration.backends.own_process import in_own_process
from tests.required import skip_or_fail

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

ROOT = Path(__file__).parents[4]
_fork_in_c: Callable[[], int] = ctypes.PyDLL(None).fork  # no hook of Python runs

_CACHE = """
import os, sys
from django.conf import settings
location, state, size_limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
settings.configure(CACHES={}, CACHEAPP={"STATE_DIR": state}, SECRET_KEY="x" * 50)
from cacheapp.backends import LMDBCache
from cacheapp.errors import CacheappError
cache = LMDBCache(location, {"OPTIONS": {"size_limit": size_limit}})
"""
_SERVE = (
    _CACHE
    + """
for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except CacheappError as exc:
        print(f"{type(exc).__name__}: {exc}", flush=True)
"""
)


class _Worker:
    """A process with a cache of its own at a LOCATION: what it is sent, it evaluates."""

    def __init__(self, location: Path, size_limit: int, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [
                *(*prefix, sys.executable, "-c", _SERVE),
                *(str(location), str(location.parent / "state"), str(size_limit)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def __call__(self, expression: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> str:
        """End the process; return what it logged."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        return self.process.communicate(timeout=30)[1]


@contextmanager
def _workers(*workers: _Worker) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.communicate()


@contextmanager
def _small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs of this size."""
    path.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() or mount is None or umount is None:
        skip_or_fail("needs root, mount and umount; run as root: make test")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if subprocess.run(command, check=False).returncode:
        skip_or_fail("needs the right to mount a tmpfs; run as root: make test")
    try:
        yield path
    finally:
        subprocess.run([str(umount), "-l", str(path)], check=True)


# -- containers ------------------------------------------------------------------------------


def test_a_second_pid_namespace_is_refused_while_the_first_one_lives(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid():
        skip_or_fail("needs root and unshare; run as root: make test")
    container = [str(unshare), "--pid", "--fork", "--kill-child", "--mount-proc"]
    first = _Worker(tmp_path / "cache", 4 * MIB, *container)
    second = _Worker(tmp_path / "cache", 4 * MIB, *container)
    with _workers(first, second):
        assert first("cache.set('key', os.getpid())") == "None"
        assert "StoreUnavailable" in (said := second("cache.get('key')"))
        assert "another PID namespace" in said
        assert "LOCATION of its own" in said
        pid = first("cache.get('key')")
        assert pid == first("os.getpid()")
        first.process.kill()
        first.process.wait()
        until(lambda: second("cache.get('key')") == pid, "the first to be gone", 30)
        assert second("cache.set('key', 'second') or cache.get('key')") == "'second'"


def test_a_process_with_another_boot_id_removes_nothing_while_this_one_lives(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(settings, tmp_path / "cache")
    cache.set("key", "kept")
    script = _CACHE.replace(
        "from cacheapp.backends import",
        "from cacheapp.backends.local import boot, pid_namespace\n"
        "from cacheapp.backends.lmdb import directory\n"
        "boot.boot_id = pid_namespace.boot_id = directory.boot_id = lambda: 'other-boot'\n"
        "from cacheapp.backends import",
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", script + "cache.set('key', 'lost')"),
            *(str(tmp_path / "cache"), str(tmp_path / "state"), str(4 * MIB)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
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


# -- one directory under two names -----------------------------------------------------------


def test_a_link_and_its_target_are_one_cache(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var-run").symlink_to("run")
    first = ours(settings, tmp_path / "run" / "cache")
    second = ours(settings, tmp_path / "var-run" / "cache", alias="second")
    first.set("key", "one truth")
    assert second.get("key") == "one truth"
    assert second.incr("number", 1) if second.add("number", 0) else None
    assert first.get("number") == 1


# -- daemons ---------------------------------------------------------------------------------

_DAEMON = (
    _CACHE
    + """
cache.set("key", "before")
os.closerange(3, 256)
files = [open(os.path.join(state, f"mine-{number}"), "w+b", buffering=0) for number in range(12)]
for file in files:
    file.write(b"precious")
for number in range(20):
    cache.set(f"key-{number}", os.urandom(9000))
cache.close()
cache.end_request = cache._environment.end_request()
cache.set("key", "after")
print(cache.get("key"))
for file in files:
    file.seek(0)
    assert file.read() == b"precious", file.name
    os.fstat(file.fileno())
"""
)


def test_a_process_that_closed_all_descriptors_writes_to_no_file_of_others(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    done = subprocess.run(
        [
            *(sys.executable, "-c", _DAEMON),
            *(str(tmp_path / "cache"), str(tmp_path / "state"), str(4 * MIB)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "after\n"
    assert "other code of this process closed its descriptors" in done.stderr


# -- forks by C code -------------------------------------------------------------------------


def _in_c_child(work: Callable[[], object]) -> int:
    pid = _fork_in_c()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return pid


@in_own_process
def test_a_child_that_c_code_forked_opens_an_environment_of_its_own(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set_many({"key": "value", "number": 0})

    def work() -> bool:
        assert cache.get("key") == "value"
        return all(cache.incr("number") for _ in range(50))

    children = [_in_c_child(work) for _ in range(8)]
    for _ in range(400):
        assert cache.get("key") == "value"
        cache.incr("number")
    assert [end_of(child) for child in children] == [0] * 8
    assert cache.get("number") == 8 * 50 + 400
    readers = _readers(cache)
    assert set(readers) <= {str(os.getpid())}, "a child left a reader's slot"
    assert len(readers) <= 1, "a child took a slot in the name of its parent"


def _readers(cache: Any) -> list[str]:
    """Return the process ids of the readers' slots, those of the dead removed."""
    cache.get("key")
    opened = cache._environment.current.lmdb  # noqa: SLF001
    opened.reader_check()
    return [
        line.split()[0] for line in opened.readers().splitlines()[1:] if "no active" not in line
    ]


@in_own_process
def test_closing_in_such_a_child_leaves_the_readers_of_the_parent(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", "value")
    environment: Any = cache._environment  # noqa: SLF001

    def in_a_read(env: Any, _transaction: object) -> list[str]:
        assert end_of(_in_c_child(lambda: not environment.close())) == 0
        lines: list[str] = env.lmdb.readers().splitlines()[1:]
        return [line.split()[0] for line in lines if line.strip()]

    assert str(os.getpid()) in environment.read(in_a_read)


def test_a_write_without_a_map_checks_its_descriptors_at_once(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    at_once = _DAEMON.replace("cache.close()\n", "").replace(
        "cache.end_request = cache._environment.end_request()\n", ""
    )
    without_map = (
        "from cacheapp.backends.lmdb import directory\n"
        "directory._OVERWRITES_IN_PLACE = frozenset()\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", without_map + at_once),
            *(str(tmp_path / "cache"), str(tmp_path / "state"), str(4 * MIB)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "after\n"


# -- forks by C code -------------------------------------------------------------------------

_FORK_IN_C = (
    _CACHE
    + """
import ctypes
cache.set("key", 1)
cache.get("key")
environment = cache._environment.current.lmdb
before = environment.readers()
assert str(os.getpid()) in before, before
child = ctypes.PyDLL(None).fork()
if child == 0:
    {child}
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert environment.readers() == before, environment.readers()
assert cache.get("key") == 1
"""
)


@pytest.mark.parametrize(
    "child",
    ["sys.exit(0)", "sys.exit(os.waitpid(os.fork() or os._exit(0), 0)[1])"],
    ids=["only exits", "forks again"],
)
def test_a_child_of_c_that_does_not_use_the_cache_keeps_its_parents_reader_slots(
    tmp_path: Path, child: str
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", _FORK_IN_C.replace("{child}", child)),
            *(str(tmp_path / "cache"), str(tmp_path / "state"), str(4 * MIB)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


# -- disks and memory ------------------------------------------------------------------------


def test_a_process_that_cannot_reserve_its_limit_harms_no_other(tmp_path: Path) -> None:
    old = _Worker(tmp_path / "cache", 4 * MIB)
    new = _Worker(tmp_path / "cache", 2**50)
    with _workers(old, new):
        assert old("cache.set('key', 'kept')") == "None"
        for call in ("cache.get('key')", "cache.set('key', 1)", "cache.get('key')"):
            assert "cannot hold a cache of 1125899906842624 bytes" in new(call)
            assert old("cache.get('key')") == "'kept'"


def test_a_limit_that_does_not_fit_beside_the_old_one_waits_for_the_old_processes(
    tmp_path: Path,
) -> None:
    with _small_disk(tmp_path / "disk", "11m") as disk:
        old = _Worker(disk / "cache", 4 * MIB)
        new = _Worker(disk / "cache", 8 * MIB)
        last = _Worker(disk / "cache", 8 * MIB)
        with _workers(old, new, last):
            assert old("cache.set('key', 'kept')") == "None"
            assert new("cache.get('key')") == "'kept'"
            assert new("cache.set('key', 'new') or cache.stats()['bytes_reserved']") < str(4 * MIB)
            assert old("cache.get('key')") == "'new'"
            old.end()
            assert "stays in use until they have ended" in new.end()
            assert last("cache.set('key', 1) or cache.get('key')") == "1"
            assert int(last("cache.stats()['bytes_reserved']")) > 7 * MIB


def test_a_disk_that_fills_up_during_the_creation_is_an_error_of_the_cache(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_check_space", lambda _path, _limits: None)  # it had passed
    with _small_disk(tmp_path / "disk", "128k") as disk:
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
    with _small_disk(tmp_path / "disk", "11m") as disk:
        old = _Worker(disk / "cache", 4 * MIB)
        new = _Worker(disk / "cache", 8 * MIB)
        with _workers(old, new):
            assert old("cache.set('key', 1)") == "None"
            old.end()
            waiting = pid_namespace.Claim(disk / "cache" / "lmdb")
            assert int(new("cache.stats()['bytes_reserved']")) > 7 * MIB
            waiting.release()


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
    with _small_disk(tmp_path / "disk", "6m") as disk:
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


@contextmanager
def _memory_cgroup(limit: int) -> Iterator[Path]:
    """Make a cgroup with a memory limit, of either version."""
    for base, name in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = base / f"cacheapp-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / name).exists():
                (group / name).write_text(str(limit))
                yield group
                return
        finally:
            group.rmdir()
    skip_or_fail("needs root and a memory cgroup; run as root: make test")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")  # noqa: S108
def test_a_cache_in_memory_beyond_the_cgroups_limit_is_refused_not_killed() -> None:
    location = Path("/dev/shm") / f"cacheapp-test-{os.getpid()}"  # noqa: S108
    script = "open(sys.argv[4] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
    use = (
        "try:\n    cache.set('key', 1)\nexcept CacheappError as exc:\n    print(exc)\n"
        "else:\n    print(cache.get('key'))\n"
    )
    try:
        with _memory_cgroup(150 * MIB) as group:
            found = []
            for size_limit in (256 * MIB, 32 * MIB):
                done = subprocess.run(
                    [
                        *(sys.executable, "-c", "import os, sys\n" + script + _CACHE + use),
                        *(str(location / "c"), str(location / "s"), str(size_limit), str(group)),
                    ],
                    capture_output=True,
                    text=True,
                    check=False,
                    cwd=ROOT,
                )
                assert done.returncode == 0, (done.returncode, done.stderr)
                found.append(done.stdout.strip())
            shutil.rmtree(location, ignore_errors=True)
    finally:
        shutil.rmtree(location, ignore_errors=True)
    assert "cannot hold a cache of 268435456 bytes" in found[0]
    assert "the limit of this process's cgroup leaves" in found[0]
    assert found[1] == "1"
