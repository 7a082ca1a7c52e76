"""Code that becomes a daemon closes all descriptors, and their numbers become those of other files."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from tests.integration.backends.children import end_of, in_child
from tests.integration.backends.disk.parts import LARGE, ours

_PRECIOUS = b"data of somebody else"
_TOO_LONG_S = 1000
"""Longer than `end_of` waits: a child that waits for the lock of a lost database is found hung."""


def _close_all(tmp_path: Path, files: int) -> Callable[[], bool]:
    """Close all descriptors, open other files; return a function that checks those."""
    logging.disable(logging.CRITICAL)  # pytest's captured streams are descriptors too
    os.closerange(3, 1024)
    paths = [tmp_path / f"file-{number}" for number in range(files)]
    numbers = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
    for number in numbers:
        os.write(number, _PRECIOUS)

    def unharmed() -> bool:
        return all(
            path.read_bytes() == _PRECIOUS and os.path.sameopenfile(number, reopened)
            for path, number in zip(paths, numbers, strict=True)
            for reopened in [os.open(path, os.O_RDONLY)]
        )

    return unharmed


def _warm(cache: Any) -> None:
    cache.set_many({f"key-{number}": number for number in range(50)}, timeout=None)
    cache.get_or_set("warm", lambda: 1)
    with cache.lock("lock"):
        pass


def _works(cache: Any) -> bool:
    with cache.lock("lock-2", blocking=False) as lock:
        locked = lock.owned()
    for number in range(50):
        cache.incr(f"key-{number}")
    cache.set("large", b"x" * LARGE)
    found = cache.get_many([f"key-{number}" for number in range(50)])
    computed = cache.get_or_set("cold", lambda: 3)
    cache.stats()
    return bool(
        locked
        and list(found.values()) == list(range(1, 51))
        and computed == 3
        and len(cache.get("large")) == LARGE
    )


@pytest.mark.parametrize("files", [0, 8, 60])
def test_after_a_fork_nothing_is_written_to_files_of_others(
    settings: Settings, tmp_path: Path, files: int
) -> None:
    cache = ours(settings, tmp_path / "cache", shards=2, database_timeout=_TOO_LONG_S)
    _warm(cache)

    def work() -> bool:
        unharmed = _close_all(tmp_path, files)
        return _works(cache) and unharmed()

    assert end_of(in_child(work)) == 0
    assert cache.get("key-1") == 2


@pytest.mark.parametrize("files", [0, 8, 60])
def test_open_databases_are_opened_again_at_once(
    settings: Settings, tmp_path: Path, files: int
) -> None:
    cache = ours(settings, tmp_path / "cache", shards=2, database_timeout=_TOO_LONG_S)

    def work() -> bool:
        _warm(cache)
        unharmed = _close_all(tmp_path, files)
        return _works(cache) and unharmed()

    assert end_of(in_child(work)) == 0
    assert cache.get("key-1") == 2


def test_a_fork_after_the_descriptors_were_closed_closes_no_file_of_others(
    settings: Settings, tmp_path: Path
) -> None:
    cache = ours(settings, tmp_path / "cache", shards=2, database_timeout=_TOO_LONG_S)

    def work() -> bool:
        _warm(cache)
        unharmed = _close_all(tmp_path, 60)
        inner = in_child(lambda: _works(cache))
        return end_of(inner) == 0 and unharmed() and cache.get("key-1") == 2

    assert end_of(in_child(work)) == 0
