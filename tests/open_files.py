"""Close what the caches of a test keep open until their process ends.

Otherwise the test process has some descriptors more after each test, and a thousand at the end.
"""

import array
import collections
import os
from pathlib import Path
from typing import Any

from cacheapp.backends.core import counters
from cacheapp.backends.core.store import registry
from cacheapp.backends.lmdb.location import Location
from cacheapp.backends.local import shared_directory, slot_file

STAY_REGISTERED = 20
_closed: collections.deque[Any] = collections.deque()
# Threads of downloads use other slot files, and may still run.
_NAMES = ("counters-", "downloads.counters", "holders")


def close_below(directory: Path) -> None:
    """Close the stores, counters and slot files in a directory."""
    _close_stores(directory)
    by_path = counters._by_path._by_path  # noqa: SLF001
    for path in [path for path in by_path if path.is_relative_to(directory)]:
        _unmap(by_path.pop(path))
    shared_directory._known[:] = [  # noqa: SLF001
        path
        for path in shared_directory._known  # noqa: SLF001
        if not path.is_relative_to(directory)
    ]
    _close_slot_files(directory)


def _close_stores(directory: Path) -> None:
    """Close the stores. The last ones stay registered for forks: a thread that is left may use one.

    Not all: each fork is announced to all of them, which took 50 ms of CPU in the end.
    """
    stores: dict[Any, Any] = registry._stores  # noqa: SLF001
    for key, store in list(stores.items()):
        paths = [part for part in key if isinstance(part, Path)] if isinstance(key, tuple) else []
        if any(path.is_relative_to(directory) for path in paths):
            store.close()
            _closed.append(key)
            if isinstance(store, Location) and hasattr(store.environment, "reference_bits"):
                del store.environment.reference_bits
    while len(_closed) > STAY_REGISTERED:
        stores.pop(_closed.popleft(), None)


def _unmap(counted: counters.Counters) -> None:
    """Let it count in private memory: asgiref keeps the caches of old settings, which have it."""
    counted.row = array.array("Q", bytes(counted._length * 8))  # noqa: SLF001
    counted._numbers = counted._index = counted._file = None  # noqa: SLF001


def _close_slot_files(directory: Path) -> None:
    opened = slot_file._open_files  # noqa: SLF001
    if not Path("/proc/self/fd").is_dir():  # `tests/package/bare_posix`: they stay open
        return
    with opened.lock:
        opened.forget_lost()
        for identity, file in list(opened.files.items()):
            path = Path(f"/proc/self/fd/{file.descriptor}").readlink()
            if path.is_relative_to(directory) and path.name.startswith(_NAMES):
                del opened.files[identity]
                descriptor, file.descriptor, file.slot = file.descriptor, -1, None
                os.close(descriptor)
