"""Finds the files that a job's rows report as complete and that are not on disk as they were."""

import concurrent.futures
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from cacheapp.conf import conf
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.repository import destination_of
from cacheapp.downloads.states import FileState
from cacheapp.downloads.storage.presence import is_present

_BATCH = 1000
_THREADS = 4  # for digests, which release the interpreter lock

Row = tuple[int, int, str, int, str, str]


def missing_files(job: DownloadJob, *, verify: bool = False) -> list[int]:
    """Return the primary keys of the complete files that are missing or have another size.

    `verify`: also of those that differ from the recorded digest. Raise `OSError` if the
    directory cannot be read: then nothing is known, and no file counts as missing.
    """
    root = conf().download_root
    if root is None and not job.destination:
        return []
    directory = destination_of(job, root)

    def is_missing(row: Row) -> bool:
        _, _, name, size, sha256, given = row
        checksum = (f"sha256:{sha256}" if sha256 else given) if verify else ""
        return not is_present(directory / Path(name), size, checksum)

    found: list[int] = []
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for rows in _batches(job):
            lost = pool.map(is_missing, rows) if verify else map(is_missing, rows)
            found += itertools.compress([row[0] for row in rows], lost)
    return found


def _batches(job: DownloadJob) -> Iterator[Sequence[Row]]:
    """Yield rows of complete files; a query at a time, so that no cursor stays open on SQLite."""
    fields = ("pk", "position", "name", "bytes_done", "sha256", "expected_checksum")
    after = -1
    while rows := list(
        DownloadFile.objects.filter(job=job, state=FileState.SUCCEEDED, position__gt=after)
        .order_by("position")
        .values_list(*fields)[:_BATCH]
    ):
        yield rows
        after = rows[-1][1]
