"""Creates a job from an order: for the HTTP API, for the pages, and for the code of a project."""

import functools
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from cacheapp.access_settings import user_key, user_name
from cacheapp.conf import MAX_PARTS, conf
from cacheapp.downloads.jobs import repository
from cacheapp.downloads.jobs.actors import CODE, Actor, visible_jobs
from cacheapp.downloads.jobs.idempotency import IdempotentOrder
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners.dispatch import initial_owner, submit_new
from cacheapp.downloads.sources.request import RequestLimits, parse_request
from cacheapp.errors import CacheappError


class DownloadsDisabled(CacheappError):
    """`DOWNLOAD_ROOT` is not set; no job was created."""


def create_job(
    *, user: Any = None, idempotency_key: str | None = None, **order: Any
) -> DownloadJob:
    """Create a job and start it, in a transaction after the commit; every worker can show it.

    `order` has the fields of an order over HTTP, such as `urls`, `threads` and `title`
    (docs/reference/http-api.md). The job belongs to `user`; without one, only managers see it. An
    order that repeats the `idempotency_key` of its user returns the job that exists.

    Raise `RequestRefused` with all mistakes, `QuotaExceeded`, `KeyReused`, `BrokerUnavailable` or
    `DownloadsDisabled`; then there is no job.
    """
    creator = CODE if user is None else _creator(user)
    return place_order(order, creator, idempotency_key)[0]


def jobs_of(user: Any) -> QuerySet[DownloadJob]:
    """Return the jobs that belong to a user, with the progress that their workers recorded."""
    return visible_jobs(_creator(user))


def _creator(user: Any) -> Actor:
    if user.pk is None:
        raise ValueError(f"user is {user!r}; expected one that is saved")
    return Actor(user_key(user), user_name(user), "code")


def place_order(
    order: Mapping[str, Any],
    creator: Actor,
    idempotency_key: str | None,
    extra_origins: frozenset[str] = frozenset(),
) -> tuple[DownloadJob, bool]:
    """Return the job of an order, and True if this call created it; otherwise like `create_job`."""
    if conf().download_root is None:
        raise DownloadsDisabled("downloads are disabled: CACHEAPP['DOWNLOAD_ROOT'] is not set")
    idempotent = IdempotentOrder(creator, idempotency_key, order)
    job, made = idempotent.existing_job(), False
    if job is None:
        request = parse_request(order, _limits(extra_origins))
        job, made = repository.create_once(request, initial_owner(), idempotent)
    if made:  # immediately, unless ATOMIC_REQUESTS is set
        transaction.on_commit(functools.partial(submit_new, job.id))
    return job, made


def _limits(extra_origins: frozenset[str]) -> RequestLimits:
    settings = conf()
    return RequestLimits(
        origins=frozenset(settings.download_origins),
        extra_origins=extra_origins,
        buckets=settings.download_buckets,
        webhooks=settings.download_webhooks,
        max_files=settings.download_max_files,
        max_threads=settings.download_max_threads,
        max_parts=MAX_PARTS,
    )
