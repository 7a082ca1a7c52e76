"""What the demo page last asked for, by alias: a small file in `STATE_DIR`, and the lock around it.

A file and not a cache: the caches are held against it. It is replaced whole, so that a kill leaves
the old record or the new one; the lock goes with the process that holds it.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cacheapp.backends.local.private_directory import private_directory
from cacheapp.conf import state_dir
from cacheapp.demo.verdict import Asked, Counted, Written
from cacheapp.errors import StoreUnavailable
from cacheapp.processes.waiting import until

_PATIENCE_S = 15.0


class Record:
    """What was asked, as read; `put` changes it, and is for whoever holds the lock alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)

    def of(self, alias: str) -> Asked:
        """Return what was last asked of an alias."""
        return self._known.get(alias, Asked())

    def put(self, alias: str, **asked: Any) -> None:
        """Replace what was written, or what was counted, or both by `None`."""
        self._known[alias] = dataclasses.replace(self.of(alias), **asked)
        new = self._path.with_suffix(f".{os.getpid()}")
        known = {name: dataclasses.asdict(one) for name, one in self._known.items()}
        new.write_text(json.dumps(known))
        new.replace(self._path)


@contextlib.contextmanager
def record(*, changing: bool = False) -> Iterator[Record]:
    """Yield the record under its lock: shared with others who look, or alone.

    Raises `StoreUnavailable` if somebody else holds it for too long.
    """
    directory = private_directory(state_dir())
    number = os.open(directory / "page.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        wanted = fcntl.LOCK_EX if changing else fcntl.LOCK_SH
        try:
            until(lambda: _take(number, wanted), "the demo page's lock", _PATIENCE_S)
        except TimeoutError as exc:
            raise StoreUnavailable(f"{exc}: another worker is writing, or hangs") from exc
        yield Record(directory / "page.json")
    finally:
        os.close(number)


def _take(number: int, wanted: int) -> bool:
    try:
        fcntl.flock(number, wanted | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> dict[str, Asked]:
    """Return what the file says; nothing where there is none, or another version wrote it."""
    try:
        found = json.loads(path.read_text())
        return {
            alias: Asked(
                written=Written(**own["written"]) if own["written"] else None,
                counted=Counted(**own["counted"]) if own["counted"] else None,
            )
            for alias, own in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
