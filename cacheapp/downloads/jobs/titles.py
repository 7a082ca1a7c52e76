"""Titles of jobs: the given one, or one made from what the job fetches, without the secrets of URLs."""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from django.db import transaction

from cacheapp.downloads.jobs import audit
from cacheapp.downloads.jobs.actors import Actor, shown_source, shown_url
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.rows import bump_generation


class _First(NamedTuple):
    name: str
    url: str


def titles_of(jobs: Iterable[DownloadJob]) -> dict[UUID, str]:
    """Return the titles of jobs by their ids, with one query for their first files."""
    found = list(jobs)
    untitled = [job.id for job in found if not (job.title or job.source)]
    rows = DownloadFile.objects.filter(job__in=untitled, position=0)
    first = {
        job_id: _First(name, url) for job_id, name, url in rows.values_list("job", "name", "url")
    }
    return {job.id: _title(job, first.get(job.id)) for job in found}


@transaction.atomic
def set_title(job: DownloadJob, title: str, by: Actor) -> None:
    """Give a job another title; an empty one: it is made from the source again."""
    job.title = title
    job.generation = bump_generation(job.id, title=title)
    audit.record(job.id, audit.RENAME, by)


def _title(job: DownloadJob, first: _First | None) -> str:
    if job.title:
        return job.title
    if job.source:
        return shown_source(job.source, whole=False)
    if first is None:
        return "no files"
    host = urlsplit(shown_url(first.url, whole=False)).hostname or ""
    more = job.files_total - 1
    others = f" and {more:,} more" if more > 0 else ""
    return f"{first.name}{others}" + (f" from {host}" if host else "")
