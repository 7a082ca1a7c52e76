"""Helpers of the LMDBCache tests: small caches, child processes, stopped transactions."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp.backends import LMDBCache
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.processes.waiting import until
from tests.contract.clients import Clients
from tests.integration.backends.children import in_child

MIB = 2**20


def ours(
    settings: Settings, location: Path, alias: str = "default", prefix: str = "", **options: Any
) -> LMDBCache:
    """Configure an alias as a small LMDBCache; return it."""
    options = {"size_limit": 4 * MIB, **options}
    settings.CACHES = {
        **(settings.CACHES if alias != "default" else {}),
        alias: {
            "BACKEND": "cacheapp.backends.LMDBCache",
            "LOCATION": str(location),
            "KEY_PREFIX": prefix,
            "OPTIONS": options,
        },
    }
    return cast("LMDBCache", caches[alias])


def forked(settings: Settings) -> Clients:
    """Return clients of `default` that are forked from this process."""
    context = cast("Any", multiprocessing.get_context("fork"))
    return Clients(context, settings.CACHES, settings.CACHEAPP)


def environments(location: Path) -> list[Path]:
    """Return the directories of environments at a LOCATION."""
    return sorted(path.parent for path in location.glob("lmdb/*/data.mdb"))


def environment_of(cache: LMDBCache) -> Environment:
    """Return this process's `Environment` of the cache."""
    return cast("Any", cache)._store.environment  # type: ignore[no-any-return]  # noqa: SLF001


def open_files(directory: Path) -> list[str]:
    """Return the environments in it that this process has open; a thread of another test may use others."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [name for name in found if name.endswith(".mdb") and name.startswith(str(directory))]


def is_stopped(pid: int) -> bool:
    """Return True if a process is stopped."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


@contextmanager
def stopped_inside(cache: LMDBCache, *, writing: bool) -> Iterator[int]:
    """Stop a child inside a transaction; yield its pid, and kill it at the end."""

    def stop(_env: object, _transaction: object) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    environment = environment_of(cache)
    hold, go = os.pipe()

    def run() -> None:
        os.read(hold, 1)
        (environment.write if writing else environment.read)(stop)

    pid = in_child(run)
    try:
        cache.get("key")  # opens the environment again after the fork closed it
        os.write(go, b"1")
        until(lambda: is_stopped(pid), "the child to stop")
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(hold)
        os.close(go)
