"""A job for the templates: what it is, how far it is, and what may be done with it."""

from typing import Any

from django.urls import reverse

from cacheapp import clock
from cacheapp.downloads.jobs import ownership
from cacheapp.downloads.jobs.actors import shown_source
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners import live_progress
from cacheapp.downloads.states import FINISHED_JOB, OWNED_JOB, JobState

_LOOKS = {
    JobState.QUEUED: "",
    JobState.RUNNING: "busy",
    JobState.PAUSED: "warn",
    JobState.SUCCEEDED: "good",
    JobState.FAILED: "bad",
    JobState.CANCELLED: "",
}
_RETRYABLE = (JobState.FAILED, JobState.CANCELLED)


def job_context(
    job: DownloadJob, title: str, progress: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a job for the templates; a running one with its live progress."""
    if progress is None and job.state == JobState.RUNNING:
        progress = live_progress.read(job.id)
    state = JobState(job.state)
    return {
        "row": job,
        "title": title,
        "url": reverse("cacheapp:download_page", args=[job.id]),
        "short": str(job.id)[:8],
        "look": _LOOKS[state],
        "live": state in OWNED_JOB,
        "ended": state in FINISHED_JOB,
        "source": shown_source(job.source, whole=False),
        "rate_bps": (progress or {}).get("rate_bps"),
        "left_s": (progress or {}).get("eta_s"),
        "retries": (progress or {}).get("retries", 0),
        "took_s": _took_s(job),
        "silent": ownership.is_orphan(job),
        "can": [name for name, possible in _possible_actions(job).items() if possible],
    }


def _took_s(job: DownloadJob) -> float | None:
    """Return the seconds from the begin to the end, or to now."""
    if job.started_at is None:
        return None
    end_s = job.finished_at.timestamp() if job.finished_at else clock.wall_s()
    return max(0.0, end_s - job.started_at.timestamp())


def _possible_actions(job: DownloadJob) -> dict[str, bool]:
    state = JobState(job.state)
    is_owned = state in OWNED_JOB
    return {
        "pause": is_owned and not (job.pause_requested or job.cancel_requested),
        "resume": state is JobState.PAUSED and not job.fingerprint,
        "retry": state in _RETRYABLE and not job.fingerprint,
        "cancel": (is_owned or state is JobState.PAUSED) and not job.cancel_requested,
    }
