"""Test LMDBCache under daemons that close all descriptors, and forks by C code."""

import os
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from tests.integration.backends.children import end_of, in_child_of_c
from tests.integration.backends.lmdb.cache_process import CACHE, run_with_cache
from tests.integration.backends.lmdb.parts import ours
from tests.integration.backends.own_process import in_own_process

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


# -- daemons ---------------------------------------------------------------------------------

_DAEMON = (
    CACHE
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
    done = run_with_cache(_DAEMON, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "after\n"
    assert "other code of this process closed its descriptors" in done.stderr


def test_a_write_without_a_map_checks_its_descriptors_at_once(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    at_once = _DAEMON.replace("cache.close()\n", "").replace(
        "cache.end_request = cache._environment.end_request()\n", ""
    )
    without_map = (
        "from cacheapp.backends.lmdb import directory\n"
        "directory._OVERWRITES_IN_PLACE = frozenset()\n"
    )
    done = run_with_cache(without_map + at_once, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "after\n"


# -- forks by C code --------------------------------------------------------------------------


@in_own_process
def test_a_child_that_c_code_forked_opens_an_environment_of_its_own(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set_many({"key": "value", "number": 0})

    def work() -> bool:
        assert cache.get("key") == "value"
        return all(cache.incr("number") for _ in range(50))

    children = [in_child_of_c(work) for _ in range(8)]
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
        assert end_of(in_child_of_c(lambda: not environment.close())) == 0
        lines: list[str] = env.lmdb.readers().splitlines()[1:]
        return [line.split()[0] for line in lines if line.strip()]

    assert str(os.getpid()) in environment.read(in_a_read)


_FORK_IN_C = (
    CACHE
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
    done = run_with_cache(_FORK_IN_C.replace("{child}", child), tmp_path)
    assert done.returncode == 0, done.stderr
