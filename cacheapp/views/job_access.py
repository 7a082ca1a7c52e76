"""Finds the jobs that the caller of a view may see; every view gets its jobs here.

A job of another user responds as one that does not exist, so that ids reveal nothing.
"""

from http import HTTPStatus
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest

from cacheapp.downloads.jobs import actors
from cacheapp.downloads.jobs.actors import MANAGE_ALL, Actor
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.views.access import caller
from cacheapp.views.responses import ApiError


def actor(request: HttpRequest) -> Actor:
    """Return the caller as the one that acts on jobs."""
    found = caller(request)
    return Actor(found.key, found.name, found.via, found.has_permission(MANAGE_ALL))


def visible_jobs(request: HttpRequest) -> QuerySet[DownloadJob]:
    """Return the caller's own jobs; for a manager, all."""
    return actors.visible_jobs(actor(request))


def get_job(request: HttpRequest, job_id: UUID) -> DownloadJob:
    """Return the job; raise `ApiError` (404) if there is none that the caller may see."""
    job = visible_jobs(request).filter(id=job_id).first()
    if job is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"no download has the id {job_id}")
    return job
