"""The states of jobs and files, and the legal transitions between them. Pure.

    queued <--> running --> succeeded | failed | cancelled
       |           |
       '--> paused <'     queued, paused --> failed | cancelled
    failed, cancelled --> queued          only on a request to retry the failed files

A job is queued from the moment its rows exist until its owner has a thread for it. It is paused on
request, or when the program that ran it was interrupted: its bytes stay on disk, and no process
owns it. A file that waits for its next attempt is queued again. Only a request for a retry leaves a
finished state, so a late writer cannot revive a job that another process has ended. A file moves
from queued directly to succeeded only if the complete file is found on disk after its worker was
lost (`repository.published_files`), and from succeeded to queued only if it is found missing when its
job is queued again (`missing_files`).
"""

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FileState(StrEnum):
    """The state of one file of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class NotificationState(StrEnum):
    """The state of a notification of a job's end; the last two are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


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
    FileState.SUCCEEDED: frozenset([FileState.QUEUED]),
    FileState.FAILED: frozenset([FileState.QUEUED]),
    FileState.CANCELLED: frozenset([FileState.QUEUED]),
}

FINISHED_JOB = frozenset([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
UNFINISHED_JOB = frozenset(JobState) - FINISHED_JOB
OWNED_JOB = frozenset([JobState.QUEUED, JobState.RUNNING])
"""The states in which a job needs a live owner."""
UNFINISHED_FILE = frozenset([FileState.QUEUED, FileState.RUNNING])


def sources(target: JobState) -> frozenset[JobState]:
    """Return the states from which a job may move to `target`: what a compare-and-set expects."""
    return frozenset(state for state, moves in JOB_MOVES.items() if target in moves)


def file_sources(target: FileState) -> frozenset[FileState]:
    """Return the states from which a file may move to `target`."""
    return frozenset(state for state, moves in FILE_MOVES.items() if target in moves)


def outcome(*, total: int, done: int, cancel_requested: bool) -> JobState:
    """Return the final state of a job that has no file in flight.

    If all files are complete the job has succeeded, even if a cancellation arrived before its end
    was recorded.
    """
    if done == total:
        return JobState.SUCCEEDED
    return JobState.CANCELLED if cancel_requested else JobState.FAILED
