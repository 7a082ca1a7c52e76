"""What all processes of the host have downloaded: counted in memory that they share.

A file counts when its owner has recorded it in the database, so that the sum over all workers is the
sum over all jobs' files, whoever fetched which. (A kill between recording and counting, a moment
long, loses a count.)
"""

from cacheapp.backends.counters import Counters, counters
from cacheapp.conf import state_dir

NAMES = (
    "files_done",
    "files_failed",
    "bytes_done",
    "retries",
    "adoptions",
    "jobs_released",
    "jobs_done",
    "threads_now",
    "jobs_now",
)
FILES_DONE, FILES_FAILED, BYTES_DONE, RETRIES, ADOPTIONS = range(5)
JOBS_RELEASED, JOBS_DONE, THREADS_NOW, JOBS_NOW = range(5, 9)
_GAUGES = frozenset({THREADS_NOW, JOBS_NOW})


def numbers() -> Counters:
    """Return this process's counters."""
    return counters(state_dir() / "downloads.counters", NAMES, _GAUGES)


def totals() -> dict[str, int]:
    """Return the sum over all processes of this host, for each of `NAMES`."""
    return numbers().totals()
