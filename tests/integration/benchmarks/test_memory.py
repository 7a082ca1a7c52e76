import mmap
import os
from pathlib import Path

from benchmarks.backends.shared_cache.memory import cached_bytes, private_bytes

_MIB = 2**20


def test_pages_of_the_caches_files_count_once_however_many_have_them_mapped(tmp_path: Path) -> None:
    ours, elsewhere = tmp_path / "cache", tmp_path / "cache-of-another"
    ours.mkdir()
    elsewhere.mkdir()
    before = private_bytes(os.getpid(), without=ours)
    mappings = []
    for directory in (ours, elsewhere):
        path = directory / "data"
        with path.open("wb") as file:
            file.writelines([b"x" * 4096] * 2048)  # in pieces: malloc keeps large ones
        with path.open("r+b") as file:
            mapping = mmap.mmap(file.fileno(), 0)
        assert mapping[:: mmap.PAGESIZE].strip(b"x") == b""  # touches every page
        mappings.append(mapping)
    grown = private_bytes(os.getpid(), without=ours) - before
    # The other directory's 8 MiB, and not ours.
    assert 7 * _MIB < grown < 13 * _MIB
    assert cached_bytes(ours) == 8 * _MIB
    for mapping in mappings:
        mapping.close()


def test_memory_of_the_process_itself_counts(tmp_path: Path) -> None:
    before = private_bytes(os.getpid(), without=tmp_path)
    # Pages that are new for sure: malloc may have enough of those that others have given back.
    with mmap.mmap(-1, 20 * _MIB) as taken:
        taken.write(b"x" * len(taken))
        grown = private_bytes(os.getpid(), without=tmp_path) - before
        assert len(taken) - _MIB < grown < 3 * len(taken)
