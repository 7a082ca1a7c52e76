"""Test writes by stores to the memory map beside writes by system calls."""

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp.backends.lmdb.directory import open_environment
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from tests.integration.backends.children import end_of, in_child
from tests.integration.backends.lmdb.parts import environment_of, ours

TIMES = 300

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def _count_up(path: Path, limits: SizeLimits, *, writemap: bool) -> bool:
    """Increment one number, and write a value of another size beside it each time."""
    environment = open_environment(path, limits, writemap=writemap)
    assert environment.flags()["writemap"] is writemap
    entries = environment.open_db(b"entries", create=False)
    for number in range(TIMES):
        with environment.begin(db=entries, write=True) as transaction:
            count = int(transaction.get(b"count") or 0)
            assert len(transaction.get(b"beside") or b"") == count % 9000
            transaction.put(b"count", b"%d" % (count + 1))
            transaction.put(b"beside", b"x" * ((count + 1) % 9000))
        assert number or environment.info()["map_size"] == limits.map_bytes
    environment.close()
    return True


def _count(env: OpenEnvironment, transaction: Transaction) -> int:
    return int(transaction.get(b"count", db=env.entries) or 0)


def test_writes_through_the_map_and_by_system_calls_do_not_lose_each_other(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path)
    cache.set("key", 1)
    env = environment_of(cache).current
    assert env is not None
    path, limits = env.path, env.limits
    children = [
        in_child(lambda: _count_up(path, limits, writemap=writemap))  # noqa: B023
        for writemap in (True, False, True, False)
    ]
    assert [end_of(child) for child in children] == [0] * 4
    assert environment_of(cache).read(_count) == 4 * TIMES
    assert cache.get("key") == 1
    assert (path / "data.mdb").stat().st_size == limits.map_bytes
