"""What clients do with `get_or_set` in their own processes.

Their factories leave a line in the file `runs` of a directory (one write with O_APPEND, so none is
lost), and continue when the file `go` exists.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync

from cacheapp.processes.waiting import until
from tests.contract.clients import DEADLINE_S

Cache = Any


def runs(directory: Path) -> int:
    """Return how often factories ran."""
    return _lines(directory / "runs")


def served(directory: Path) -> int:
    """Return how many calls of `refresh` have got a value."""
    return _lines(directory / "served")


def _lines(log: Path) -> int:
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def _note_a_run(directory: Path) -> None:
    _note(directory / "runs")


def _note(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, f"{os.getpid()}\n".encode())
    os.close(log)


def _await_file(path: Path) -> None:
    until(path.exists, f"the file {path.name}", DEADLINE_S)


def fill(cache: Cache, directory: Path, value: str, stale: float = 0) -> Any:
    """Get the value, or compute it when the file `go` exists."""

    def factory() -> str:
        _note_a_run(directory)
        _await_file(directory / "go")
        return value

    return cache.get_or_set("key", factory, 100, stale=stale)


def fill_at_once(cache: Cache, directory: Path, value: str) -> Any:
    """Get the value, or compute it."""

    def factory() -> str:
        _note_a_run(directory)
        return value

    return cache.get_or_set("key", factory, 100)


def fail(cache: Cache, directory: Path) -> str:
    """Run a factory that raises when the file `go` exists; return what its caller receives."""

    def factory() -> str:
        _note_a_run(directory)
        _await_file(directory / "go")
        raise LookupError("broken")

    try:
        found: str = cache.get_or_set("key", factory, 100)
    except LookupError as exc:
        return repr(exc)
    return found


def refresh(cache: Cache, directory: Path) -> Any:
    """Get a stale value, and live on until it is refreshed: here or in another process."""
    found = fill(cache, directory, "new", stale=1000)
    _note(directory / "served")
    until(lambda: cache.get("key") == "new", "the refreshed value", DEADLINE_S)
    return found


def nested(cache: Cache, directory: Path, outer: str, inner: str) -> str:
    """Compute `outer` from `inner`, while another process does it the other way round."""

    def factory() -> str:
        (directory / f"holds-{outer}").touch()
        _await_file(directory / f"holds-{inner}")
        found: str = cache.get_or_set(inner, lambda: f"{inner} for {outer}", 100)
        (directory / f"got-{inner}").touch()
        _await_file(directory / f"got-{outer}")  # the other one still held it
        return f"{outer} of {found}"

    result: str = cache.get_or_set(outer, factory, 100)
    return result


def afill(cache: Cache, directory: Path, tasks: int) -> list[Any]:
    """Get the value in several tasks of one event loop."""

    async def factory() -> str:
        _note_a_run(directory)
        await asyncio.to_thread(_await_file, directory / "go")
        return "value"

    async def all_tasks() -> list[Any]:
        return await asyncio.gather(*(cache.aget_or_set("key", factory, 100) for _ in range(tasks)))

    return async_to_sync(all_tasks)()


WRITES = {
    "set": lambda cache: cache.set("key", "written"),
    "add": lambda cache: cache.add("key", "written"),
    "delete": lambda cache: cache.delete("key"),
    "clear": lambda cache: cache.clear(),
}


def write(cache: Cache, name: str) -> Any:
    """Write, delete or clear; return what is there then."""
    WRITES[name](cache)
    return cache.get("key", "absent")
