"""The demo's records: small files in `STATE_DIR`, with locks; one has the last changes to each alias.

They are files and not in a cache because the caches are compared with them. A file is replaced whole, so
a kill leaves the old record or the new one; the kernel releases the lock of a dead process.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cacheapp.backends.local.private_directory import private_directory
from cacheapp.conf import state_dir
from cacheapp.demo.verdict import Counted, LastChanges, Written
from cacheapp.errors import CacheappError, StoreUnavailable
from cacheapp.processes.waiting import until
from cacheapp.typed_values import read_dataclass

FILE = "page.json"
_LOCK_TIMEOUT_S = 15.0
RecordT = TypeVar("RecordT")


class RecordDamaged(CacheappError):
    """A file of the demo cannot be read, or another version wrote it; the next change replaces it."""


class Record:
    """The record as it was read; `put` requires the exclusive lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = read_record_or_none(path.name, _parse) or {}

    def of(self, alias: str) -> LastChanges:
        """Return the last changes to an alias."""
        return self._known.get(alias, LastChanges())

    def put(self, alias: str, **changes: Any) -> None:
        """Replace `written` or `counted` of an alias, or both."""
        self._known[alias] = dataclasses.replace(self.of(alias), **changes)
        write_json(self._path, {name: dataclasses.asdict(one) for name, one in self._known.items()})


@contextlib.contextmanager
def record(*, changing: bool = False) -> Iterator[Record]:
    """Yield the record under its lock: shared for reading, exclusive for changing.

    Raises `StoreUnavailable` if the lock cannot be acquired in time.
    """
    with locked("page", changing=changing) as directory:
        yield Record(directory / FILE)


@contextlib.contextmanager
def locked(name: str, *, changing: bool = False) -> Iterator[Path]:
    """Hold a lock among the workers of this machine; yield the directory of their files."""
    directory = private_directory(state_dir())
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    number = os.open(directory / f"{name}.lock", flags, 0o600)
    try:
        wanted = fcntl.LOCK_EX if changing else fcntl.LOCK_SH
        try:
            until(lambda: _take(number, wanted), f"the lock {name} of the demo", _LOCK_TIMEOUT_S)
        except TimeoutError as exc:
            raise StoreUnavailable(f"{exc}: another worker holds it, or hangs") from exc
        yield directory
    finally:
        os.close(number)


def stamp(*names: str) -> tuple[tuple[int, int], ...]:
    """Return what differs once one of these files of the demo was replaced."""
    directory = private_directory(state_dir())
    return tuple(_file_stamp(directory / name) for name in names)


def _file_stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_ino, found.st_mtime_ns)


def write_json(path: Path, content: Any) -> None:
    """Replace a file whole, so that a reader finds the old content or the new one."""
    new = path.with_suffix(f".{os.getpid()}")
    new.unlink(missing_ok=True)  # left by a process of the same pid
    with new.open("x") as file:  # never through a link
        json.dump(content, file)
    new.replace(path)


def read_record(name: str, parse: Callable[[Any], RecordT]) -> RecordT | None:
    """Return what `parse` makes of a file in `STATE_DIR`; `None` if there is none.

    Raises `RecordDamaged`, or `StoreUnavailable` if another user could have written the file.
    """
    path = private_directory(state_dir()) / name
    try:
        return parse(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise RecordDamaged(
            f"{path} is damaged, or another version wrote it: {type(exc).__name__}: {exc}"
        ) from exc


def read_record_or_none(name: str, parse: Callable[[Any], RecordT]) -> RecordT | None:
    """Return the record as `read_record` does, and `None` in place of a damaged one."""
    try:
        return read_record(name, parse)
    except RecordDamaged:
        return None


def _take(number: int, wanted: int) -> bool:
    try:
        fcntl.flock(number, wanted | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(raw: Any) -> dict[str, LastChanges]:
    return {
        alias: LastChanges(
            written=read_dataclass(Written, own["written"]) if own["written"] else None,
            counted=read_dataclass(Counted, own["counted"]) if own["counted"] else None,
        )
        for alias, own in raw.items()
    }
