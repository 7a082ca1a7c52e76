"""Counts what all processes of this machine have downloaded, in memory that they share.

A file is counted after its owner has recorded it in the database, so that the sum over all workers is
the sum over the files of all jobs. (A process that is killed between the two loses a count.)
"""

from collections.abc import Iterable
from uuid import UUID

from cacheapp.backends.core.counters import Counters, counters
from cacheapp.conf import state_dir
from cacheapp.downloads.plan import FileReport
from cacheapp.downloads.states import FileState

NAMES = (
    "files_done",
    "files_failed",
    "bytes_done",
    "retries",
    "jobs_started",
    "adoptions",
    "releases",
    "jobs_now",
    "threads_now",
)
FILES_DONE, FILES_FAILED, BYTES_DONE, RETRIES = range(4)
JOBS_STARTED, ADOPTIONS, RELEASES, JOBS_NOW, THREADS_NOW = range(4, 9)
_GAUGES = frozenset({JOBS_NOW, THREADS_NOW})  # of live processes, not totals


class DownloadMetrics:
    """The counts of this process; for its coordinator, and for the end of the worker."""

    def __init__(self) -> None:
        self._counters = _counters()
        self._retries: dict[UUID, int] = {}  # of each run, counted so far

    def count(self, name: int) -> None:
        """Count one more of `NAMES[name]`."""
        self._counters.add(name)

    def count_files(self, job_id: UUID, reports: Iterable[FileReport], retries: int) -> None:
        """Count files that are recorded in the database, and the retries of their run."""
        add = self._counters.add
        for report in reports:
            if report.state is FileState.SUCCEEDED:
                add(FILES_DONE)
                add(BYTES_DONE, report.bytes_done)
            elif report.state is FileState.FAILED:
                add(FILES_FAILED)
        add(RETRIES, retries - self._retries.get(job_id, 0))
        self._retries[job_id] = retries

    def forget(self, job_id: UUID) -> None:
        """Forget a run."""
        self._retries.pop(job_id, None)

    def set_gauges(self, jobs: int, threads: int) -> None:
        """Set the number of jobs that this process runs, and of its threads that fetch a file."""
        self._counters.set_gauge(JOBS_NOW, jobs)
        self._counters.set_gauge(THREADS_NOW, threads)


def totals() -> dict[str, int]:
    """Return the sum over all processes of this machine, for each of `NAMES`."""
    return _counters().totals()


def _counters() -> Counters:
    return counters(state_dir() / "downloads.counters", NAMES, _GAUGES)
