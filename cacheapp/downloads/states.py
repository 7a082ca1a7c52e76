r"""The states of jobs and files, and which moves between them are legal. Pure.

    queued --> running --> succeeded | failed | cancelled
       \------------------------------> failed | cancelled

A job is queued from the moment its rows exist until its owner gives it threads. From the finished
states there is no way on: a late writer can never bring back what somebody else has ended. A file
goes from queued straight to succeeded only where its whole file is found on disk after its worker
was lost (`ledger.settle`).
"""

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FileState(StrEnum):
    """Where one file of a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


JOB_MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset([JobState.RUNNING, JobState.FAILED, JobState.CANCELLED]),
    JobState.RUNNING: frozenset([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED]),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

FILE_MOVES: Mapping[FileState, frozenset[FileState]] = {
    FileState.QUEUED: frozenset(
        [FileState.RUNNING, FileState.SUCCEEDED, FileState.FAILED, FileState.CANCELLED]
    ),
    FileState.RUNNING: frozenset([FileState.SUCCEEDED, FileState.FAILED, FileState.CANCELLED]),
    FileState.SUCCEEDED: frozenset(),
    FileState.FAILED: frozenset(),
    FileState.CANCELLED: frozenset(),
}

UNFINISHED_JOB = frozenset(state for state, moves in JOB_MOVES.items() if moves)
UNFINISHED_FILE = frozenset(state for state, moves in FILE_MOVES.items() if moves)


def sources(target: JobState) -> frozenset[JobState]:
    """Return the states from which a job may move to `target`: what a compare-and-set expects."""
    return frozenset(state for state, moves in JOB_MOVES.items() if target in moves)


def file_sources(target: FileState) -> frozenset[FileState]:
    """Return the states from which a file may move to `target`."""
    return frozenset(state for state, moves in FILE_MOVES.items() if target in moves)


def outcome(*, total: int, done: int, cancel_asked: bool) -> JobState:
    """Return how a job ends none of whose files is in flight any more.

    All files whole is success, even where a cancellation came a moment too late to stop any.
    """
    if done == total:
        return JobState.SUCCEEDED
    return JobState.CANCELLED if cancel_asked else JobState.FAILED
