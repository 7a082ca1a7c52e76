"""What four workers and their cache take with 100,000 entries of 1 KiB.

The first worker fills the cache; the others read every entry, and set what they miss, as a worker
with a cache of its own must. What counts is what grew: each worker's part of its memory (PSS: a page
that several have mapped counts as a share for each), without mappings of the cache's files; the
pages of those files that are in memory, mapped or not; and the memory of the cache's server. Nothing
is removed afterwards: a server would keep the room, and the next cache on it would seem to need none.
"""

import ctypes
import functools
import mmap
import random
from collections.abc import Sequence
from pathlib import Path

from django.core.cache import caches

from benchmarks.backends.shared_cache.crew import Crew
from benchmarks.backends.shared_cache.peers import Peers, server_of
from benchmarks.measuring import progress

_KIB = 1024
_LIBC = ctypes.CDLL(None, use_errno=True)


def measure(
    peers: Peers, names: Sequence[str], entries: int, workers: int
) -> dict[str, list[float]]:
    """Return the MiB that were added, by cache; measured once."""
    return {name: [_growth(peers, name, entries, workers)] for name in names}


def _growth(peers: Peers, name: str, entries: int, workers: int) -> float:
    directory = peers.directory / name
    server = server_of(name)
    server_pids = [peers.servers[server].pid] if server else []
    with Crew(workers) as crew:
        crew.together(warm, name)
        taken = functools.partial(_taken, crew.pids, server_pids, directory)
        before = taken()
        idle = (warm, name)
        crew.each([(fill, name, entries), *([idle] * (workers - 1))])
        crew.each([idle, *([(read, name, entries)] * (workers - 1))])
        found = taken() - before
    progress(f"memory of {name}")
    return found / 2**20


def _taken(workers: Sequence[int], servers: Sequence[int], directory: Path) -> int:
    own = sum(private_bytes(pid, directory) for pid in (*workers, *servers))
    return own + cached_bytes(directory)


def private_bytes(pid: int, without: Path) -> int:
    """Return a process's PSS, less its mappings of files below the directory."""
    total, counted = 0, True
    prefix = f"{without.resolve()}/"
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):  # a mapping's first line; its path is the sixth field
            fields = rest.split(maxsplit=4)
            counted = len(fields) < 5 or not fields[4].startswith(prefix)  # noqa: PLR2004
        elif name == "Pss:" and counted:
            total += int(rest.split()[0]) * _KIB
    return total


def cached_bytes(directory: Path) -> int:
    """Return the bytes of the directory's files that are in memory."""
    return sum(_resident_bytes(path) for path in directory.rglob("*") if path.is_file())


def _resident_bytes(path: Path) -> int:
    """Return the bytes of a file that are in the page cache, by `mincore`."""
    if not (size := path.stat().st_size):
        return 0
    pages = -(-size // mmap.PAGESIZE)
    resident = (ctypes.c_ubyte * pages)()
    # A private mapping, because ctypes takes the address of writable memory only.
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapping,
    ):
        first = ctypes.c_char.from_buffer(mapping)
        failed = _LIBC.mincore(ctypes.byref(first), ctypes.c_size_t(size), resident)
        del first  # a mapping with an exported address cannot be closed
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore of {path}")
    return sum(page & 1 for page in resident) * mmap.PAGESIZE


# -- in the processes of the crew ------------------------------------------------------------


def _key(number: int) -> str:
    return f"entry-{number}"


def _value(number: int) -> bytes:
    return random.Random(number).randbytes(_KIB)


def warm(name: str) -> None:
    """Load the code and open the files."""
    caches[name].get("nothing")


def fill(name: str, entries: int) -> None:
    """Set all entries."""
    for number in range(entries):
        caches[name].set(_key(number), _value(number))


def read(name: str, entries: int) -> None:
    """Get all entries; set those that are missing."""
    cache = caches[name]
    for number in range(entries):
        if cache.get(_key(number)) is None:
            cache.set(_key(number), _value(number))
