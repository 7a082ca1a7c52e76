"""One counter, many processes: in a variable, in a file, in a cache that they share."""

import fcntl
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import cache

counter = 0


def in_a_variable(_place: Path, times: int) -> None:
    """Count in memory: each process has its own, so nothing is shared and nothing races."""
    global counter
    for _ in range(times):
        counter += 1


def in_a_file(place: Path, times: int) -> None:
    """Read the number, write it back, one larger."""
    for _ in range(times):
        number = int(place.read_text() or 0)
        place.write_text(str(number + 1))


def in_a_locked_file(place: Path, times: int) -> None:
    """Do the same under a lock."""
    for _ in range(times):
        with place.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            number = int(file.read())
            file.seek(0)
            file.write(str(number + 1))


def by_get_and_set(_place: Path, times: int) -> None:
    """Read from the cache that all share, write back."""
    for _ in range(times):
        cache.set("counter", cache.get("counter") + 1, None)


def by_incr(_place: Path, times: int) -> None:
    """Leave it to the cache, in one step."""
    for _ in range(times):
        cache.incr("counter")


Count = Callable[[Path, int], None]
CODES: "dict[str, Count]" = {
    "a variable": in_a_variable,
    "a file": in_a_file,
    "a file with a lock": in_a_locked_file,
    "cache get + set": by_get_and_set,
    "cache incr": by_incr,
}


def lost(code: str, backend: str, location: str, processes: int, times: int) -> "dict[str, Any]":
    """Return how many additions are missing in the end, and how many processes ended in order."""
    with tempfile.TemporaryDirectory() as directory:
        settings.configure(
            SECRET_KEY="only for this",  # noqa: S106
            CACHEAPP={"STATE_DIR": Path(directory) / "state"},
            CACHES={
                "default": {
                    "BACKEND": backend,
                    "LOCATION": location or str(Path(directory) / "cache"),
                    "KEY_PREFIX": "lab",
                }
            },
        )
        place = Path(directory) / "counter"
        place.write_text("0")
        _together(CODES[code], place, processes, times, cached="cache" in code)
        return {"lost": processes * times - _read(code, place)}


def _together(count: Count, place: Path, processes: int, times: int, *, cached: bool) -> None:
    if cached:
        cache.set("counter", 0, None)
        cache.close()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes)
    crew = [
        context.Process(target=_work, args=(count, place, times, barrier)) for _ in range(processes)
    ]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    if wrong := [process.exitcode for process in crew if process.exitcode]:
        raise RuntimeError(f"{len(wrong)} of {processes} processes ended with {wrong}")


def _work(count: Count, place: Path, times: int, barrier: Any) -> None:
    barrier.wait(60)
    count(place, times)


def _read(code: str, place: Path) -> int:
    """Return the number in the end, as the process sees it that started the others."""
    if code == "a variable":
        return counter
    if "cache" in code:
        return int(cache.get("counter"))
    return int(place.read_text() or 0)
