"""Applies requests to a run and records how it ended, for the coordinator and the terminal alike."""

from cacheapp.downloads.engine.run import LOST, JobRun
from cacheapp.downloads.jobs import transitions
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.jobs.repository import PendingRequests
from cacheapp.downloads.states import FileState, JobState

CANCELLED, PAUSED = "cancelled", "paused"
RELEASED = "released: its process ends"


def apply_requests(run: JobRun, requests: PendingRequests) -> None:
    """Stop a run whose job is lost, cancelled or paused."""
    job_id = run.plan.job
    if job_id in requests.lost:
        run.stop(LOST, FileState.QUEUED, keep=True)
    elif job_id in requests.cancelled:
        run.stop(CANCELLED, FileState.CANCELLED)
    elif job_id in requests.paused:
        run.stop(PAUSED, FileState.QUEUED, keep=True)


def release(run: JobRun) -> None:
    """Stop a run so that another process can resume its job."""
    run.stop(RELEASED, FileState.QUEUED, keep=True)


def record_end(run: JobRun, owner: JobOwner) -> JobState | None:
    """Write that a run is over; return the job's new state, or `None` if it is not this run's.

    Not for a run that was released or has lost its job.
    """
    if run.stopped == PAUSED:
        return record_pause(run, owner)
    reports, progress = run.changes()
    error = "" if run.stopped in {None, CANCELLED} else run.stopped or ""
    return transitions.finish(run.plan.job, owner, reports, progress, error, run.plan.token)


def record_pause(run: JobRun, owner: JobOwner) -> JobState | None:
    """Write that a run was interrupted and its job is paused; otherwise like `record_end`."""
    reports, progress = run.changes()
    return transitions.pause(run.plan.job, owner, reports, progress, "", run.plan.token)
