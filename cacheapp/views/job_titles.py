"""Titles of jobs, made from what they fetch, without the secrets of URLs."""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from cacheapp.downloads.jobs.actors import shown_source, shown_url
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob


class _First(NamedTuple):
    name: str
    url: str


def titles_of(jobs: Iterable[DownloadJob]) -> dict[UUID, str]:
    """Return the titles of jobs by their ids, with one query for their first files."""
    found = list(jobs)
    rows = DownloadFile.objects.filter(job__in=[job.id for job in found], position=0)
    first = {
        job_id: _First(name, url) for job_id, name, url in rows.values_list("job", "name", "url")
    }
    return {job.id: _title(job, first.get(job.id)) for job in found}


def _title(job: DownloadJob, first: _First | None) -> str:
    if job.source:
        return shown_source(job.source, whole=False)
    if first is None:
        return "no files"
    host = urlsplit(shown_url(first.url, whole=False)).hostname or ""
    more = job.files_total - 1
    others = f" and {more:,} more" if more > 0 else ""
    return f"{first.name}{others}" + (f" from {host}" if host else "")
