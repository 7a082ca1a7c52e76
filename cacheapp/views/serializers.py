"""Convert a job and its files to JSON fields."""

import datetime as dt
from typing import Any

from cacheapp.downloads.http.url_policy import redacted
from cacheapp.downloads.jobs import ownership
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.runners import live_progress
from cacheapp.downloads.states import FileState, JobState, NotificationState

MAX_ERRORS = MAX_RENAMED = 100


def serialize_job(job: DownloadJob) -> dict[str, Any]:
    """Return the fields of a job."""
    return _job_fields(job, _live_progress(job))


def serialize_job_detail(job: DownloadJob) -> dict[str, Any]:
    """Return the fields of a job with its live progress and the errors of its files."""
    now = _live_progress(job)
    fields = {**_job_fields(job, now), "live": now, "webhook": serialize_webhook(job)}
    return {**fields, **_error_fields(job), **_renamed_fields(job)}


def serialize_webhook(job: DownloadJob) -> dict[str, Any] | None:
    """Return the webhook of a job and its latest notification; `None` without a webhook."""
    if not job.webhook:
        return None
    found = job.notifications.exclude(url="").order_by("-created_at").first()
    shown = {"url": redacted(job.webhook), "state": None, "event_id": None, "tries": 0, "error": ""}
    shown |= {"next_try_at": None, "delivered_at": None}
    if found is not None:
        is_pending = found.state == NotificationState.PENDING
        shown |= {
            "state": found.state,
            "event_id": str(found.id),
            "tries": found.tries,
            "error": found.error,
            "next_try_at": _isoformat(found.due_at if is_pending else None),
            "delivered_at": _isoformat(found.delivered_at),
        }
    return shown


def serialize_file(file: DownloadFile) -> dict[str, Any]:
    """Return one file of a job."""
    return {
        "position": file.position,
        "url": file.url,
        "name": file.name,
        "original_name": file.original_name or None,
        "state": file.state,
        "bytes_done": file.bytes_done,
        "bytes_total": file.expected_size,
        "sha256": file.sha256 or None,
        "tries": file.tries,
        "error": file.error,
        "generation": file.generation,
    }


def owner_is_lost(job: DownloadJob) -> bool:
    """Return True if the job has an owner whose heartbeat is missing."""
    return job.owner is not None and ownership.is_orphan(job)


def _live_progress(job: DownloadJob) -> dict[str, Any] | None:
    return live_progress.read(job.id) if job.state == JobState.RUNNING else None


def _job_fields(job: DownloadJob, now: dict[str, Any] | None) -> dict[str, Any]:
    rate_bps = now["rate_bps"] if now else None
    return {
        "id": str(job.id),
        "state": job.state,
        "error": job.error,
        "paused": job.state == JobState.PAUSED,
        "pause_requested": job.pause_requested,
        "cancel_requested": job.cancel_requested,
        "threads": job.threads,
        "source": job.source or None,
        "include": job.include,
        "exclude": job.exclude,
        "portable_names": job.portable_names,
        "files_total": job.files_total,
        "files_renamed": job.files_renamed,
        "files_done": job.files_done,
        "files_failed": job.files_failed,
        "bytes_done": job.bytes_done,
        "bytes_total": job.bytes_total,
        "rate_bps": rate_bps,
        "eta_s": now.get("eta_s") if now else None,
        "owner_pid": job.owner_pid,
        "owner_lost": owner_is_lost(job),
        "adoptions": job.adoptions,
        "generation": job.generation,
        "created_at": _isoformat(job.created_at),
        "started_at": _isoformat(job.started_at),
        "heartbeat_at": _isoformat(job.heartbeat_at),
        "finished_at": _isoformat(job.finished_at),
    }


def _error_fields(job: DownloadJob) -> dict[str, Any]:
    failed = job.files.filter(state=FileState.FAILED).order_by("position")[:MAX_ERRORS]
    errors = list(failed.values("url", "name", "error"))
    return {"errors": errors, "errors_left_out": max(0, job.files_failed - len(errors))}


def _renamed_fields(job: DownloadJob) -> dict[str, Any]:
    renamed = []
    if job.files_renamed:
        changed = job.files.exclude(original_name="").order_by("position")[:MAX_RENAMED]
        renamed = list(changed.values("url", "name", "original_name"))
    return {"renamed": renamed, "renamed_left_out": max(0, job.files_renamed - len(renamed))}


def _isoformat(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")
