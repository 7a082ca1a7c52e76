r"""The states of jobs and files, and which moves between them are legal. Pure.

    queued <--> running --> succeeded | failed | cancelled
       |           |
       '--> paused <'     queued, paused --> failed | cancelled
    failed, cancelled --> queued          only when somebody asks to retry what failed

A job is queued from the moment its rows exist until its owner has a thread for it. It is paused
when somebody asked for that, or when the program that ran it was stopped in order: its bytes stay on
disk, and nobody has to be alive for it. A file that waits for its next try is queued again. From
the finished states there is one way on, and only on request: a late writer can never bring back what
somebody else has ended. A file goes from queued straight to succeeded only where its whole file is
found on disk after its worker was lost (`ledger.whole`).
"""

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
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
    JobState.QUEUED: frozenset(
        [JobState.RUNNING, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED]
    ),
    JobState.RUNNING: frozenset(
        [
            *(JobState.QUEUED, JobState.PAUSED),
            *(JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED),
        ]
    ),
    JobState.PAUSED: frozenset([JobState.QUEUED, JobState.FAILED, JobState.CANCELLED]),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset([JobState.QUEUED]),
    JobState.CANCELLED: frozenset([JobState.QUEUED]),
}

FILE_MOVES: Mapping[FileState, frozenset[FileState]] = {
    FileState.QUEUED: frozenset(
        [FileState.RUNNING, FileState.SUCCEEDED, FileState.FAILED, FileState.CANCELLED]
    ),
    FileState.RUNNING: frozenset(
        [FileState.QUEUED, FileState.SUCCEEDED, FileState.FAILED, FileState.CANCELLED]
    ),
    FileState.SUCCEEDED: frozenset(),
    FileState.FAILED: frozenset([FileState.QUEUED]),
    FileState.CANCELLED: frozenset([FileState.QUEUED]),
}

FINISHED_JOB = frozenset([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
UNFINISHED_JOB = frozenset(JobState) - FINISHED_JOB
OWNED_JOB = frozenset([JobState.QUEUED, JobState.RUNNING])
"""Somebody has to be alive for these."""
UNFINISHED_FILE = frozenset([FileState.QUEUED, FileState.RUNNING])


def sources(target: JobState) -> frozenset[JobState]:
    """Return the states from which a job may move to `target`: what a compare-and-set expects."""
    return frozenset(state for state, moves in JOB_MOVES.items() if target in moves)


def file_sources(target: FileState) -> frozenset[FileState]:
    """Return the states from which a file may move to `target`."""
    return frozenset(state for state, moves in FILE_MOVES.items() if target in moves)


def outcome(*, total: int, done: int, cancel_requested: bool) -> JobState:
    """Return how a job ends none of whose files is in flight any more.

    All files whole is success, even where a cancellation came a moment too late to stop any.
    """
    if done == total:
        return JobState.SUCCEEDED
    return JobState.CANCELLED if cancel_requested else JobState.FAILED
