"""Applies requests to a run and records how it ended, for the coordinator and the terminal alike."""

from cacheapp.conf import Conf, state_dir
from cacheapp.downloads.engine.rate_limit import process_limits
from cacheapp.downloads.engine.run import LOST, JobRun
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.jobs import transitions
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.jobs.repository import PendingRequests
from cacheapp.downloads.states import FINISHED_JOB, FileState, JobState

CANCELLED, PAUSED = "cancelled", "paused"
RELEASED = "released: its process ends"


def transfer_limits(settings: Conf) -> TransferLimits:
    """Return the limits of the settings for each file, and of the rate of all files together."""
    machine_rate, process_rate = settings.download_max_rate, settings.download_max_process_rate
    return TransferLimits(
        max_bytes=settings.download_max_bytes,
        connect_s=settings.download_connect_s,
        read_s=settings.download_read_s,
        stall_s=settings.download_stall_s,
        stall_bytes=settings.download_stall_bytes,
        split_from_bytes=settings.download_split_from_bytes,
        min_free_bytes=settings.download_min_free_bytes,
        throttle=process_limits(state_dir() / "downloads.rate", machine_rate, process_rate),
    )


def apply_requests(run: JobRun, requests: PendingRequests) -> None:
    """Stop a run if its job is lost, cancelled or paused."""
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
    error = run.left_out if run.stopped in {None, CANCELLED} else run.stopped or ""
    return transitions.finish(run.plan.job, owner, reports, progress, error, run.plan.token)


def clean(run: JobRun, state: JobState | None) -> None:
    """Release a run's resources, and remove its directory if no later run may resume from it.

    A process that ends or resumes an unfinished job (or a lost one, `None`) may not have taken over the
    directory yet. The partial files of a failed job stay, for a retry, until they are pruned.
    """
    is_failed = state is JobState.FAILED
    run.clean(keep=state not in FINISHED_JOB or (is_failed and run.has_partial_files()))


def record_pause(run: JobRun, owner: JobOwner) -> JobState | None:
    """Write that a run was interrupted and its job is paused; otherwise like `record_end`."""
    reports, progress = run.changes()
    return transitions.pause(run.plan.job, owner, reports, progress, "", run.plan.token)
