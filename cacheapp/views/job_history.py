"""What happened to a job, for people: its actions and its changes of worker, from the first to the last."""

import datetime as dt
from dataclasses import dataclass

from cacheapp.downloads.jobs import audit
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.states import FINISHED_JOB

_SHOWN = 50
_WORDS = {
    audit.CREATE: "created",
    audit.PAUSE: "pause requested",
    audit.RESUME: "resumed",
    audit.CANCEL: "cancel requested",
    audit.RETRY: "retried",
    audit.RENAME: "renamed",
    audit.BEGIN: "began",
    audit.ADOPT: "taken over",
}


@dataclass(frozen=True)
class HistoryEvent:
    """One event: what, by which client or worker, and details."""

    at: dt.datetime
    what: str
    by: str = ""
    detail: str = ""


def history_of(job: DownloadJob) -> list[HistoryEvent]:
    """Return the events of a job in the order of time; of more than 50 actions, the newest."""
    entries = list(audit.entries_of(job)[:_SHOWN])
    events = [
        HistoryEvent(
            entry.at,
            _WORDS.get(entry.action, entry.action),
            entry.actor_name if entry.via == audit.WORKER else f"{entry.actor_name} ({entry.via})",
            entry.detail,
        )
        for entry in reversed(entries)
    ]
    if job.state in FINISHED_JOB and job.finished_at is not None:
        events.append(HistoryEvent(job.finished_at, job.state, "", job.error))
    return events
