"""Convert a job and its files to JSON fields, with whole URLs only for the job's creator."""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from cacheapp.downloads.http.redaction import redacted
from cacheapp.downloads.jobs import ownership
from cacheapp.downloads.jobs.actors import Actor, is_creator, shown_source, shown_url
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.runners import live_progress
from cacheapp.downloads.states import FileState, JobState, NotificationState

MAX_ERRORS = MAX_RENAMED = 100


def serialize_job(job: DownloadJob, viewer: Actor) -> dict[str, Any]:
    """Return the fields of a job, as `viewer` may see them."""
    return _job_fields(job, _live_progress(job), whole=is_creator(viewer, job))


def serialize_job_detail(job: DownloadJob, viewer: Actor) -> dict[str, Any]:
    """Return the fields of a job with its live progress and the errors of its files."""
    now = _live_progress(job)
    whole = is_creator(viewer, job)
    return {
        **_job_fields(job, now, whole=whole),
        "live": now,
        "webhook": serialize_webhook(job),
        **_error_fields(job, whole=whole),
        **_renamed_fields(job, whole=whole),
    }


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


def serialize_file(file: DownloadFile, *, whole: bool) -> dict[str, Any]:
    """Return one file of a job; `whole`: with the whole URL, for the job's creator."""
    return {
        "position": file.position,
        "url": shown_url(file.url, whole=whole),
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


def _job_fields(job: DownloadJob, now: dict[str, Any] | None, *, whole: bool) -> dict[str, Any]:
    rate_bps = now["rate_bps"] if now else None
    return {
        "id": str(job.id),
        "title": job.title or None,
        "state": job.state,
        "error": job.error,
        "paused": job.state == JobState.PAUSED,
        "pause_requested": job.pause_requested,
        "cancel_requested": job.cancel_requested,
        "threads": job.threads,
        "created_by": job.created_by or None,
        "source": shown_source(job.source, whole=whole) or None,
        "include": job.include,
        "exclude": job.exclude,
        "portable_names": job.portable_names,
        "limit_rate": job.limit_rate,
        "parts": job.parts,
        "files_total": job.files_total,
        "files_unchanged": job.files_unchanged,
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


def _error_fields(job: DownloadJob, *, whole: bool) -> dict[str, Any]:
    failed = job.files.filter(state=FileState.FAILED).order_by("position")[:MAX_ERRORS]
    errors = _with_urls(failed.values("url", "name", "error"), whole=whole)
    return {"errors": errors, "errors_left_out": max(0, job.files_failed - len(errors))}


def _renamed_fields(job: DownloadJob, *, whole: bool) -> dict[str, Any]:
    renamed = []
    if job.files_renamed:
        changed = job.files.exclude(original_name="").order_by("position")[:MAX_RENAMED]
        renamed = _with_urls(changed.values("url", "name", "original_name"), whole=whole)
    return {"renamed": renamed, "renamed_left_out": max(0, job.files_renamed - len(renamed))}


def _with_urls(rows: Iterable[Mapping[str, Any]], *, whole: bool) -> list[dict[str, Any]]:
    return [{**row, "url": shown_url(row["url"], whole=whole)} for row in rows]


def _isoformat(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")
