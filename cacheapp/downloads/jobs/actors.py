"""Decides which jobs a client may see and change, and which one sees whole URLs.

A job belongs to its creator: the user or API token that ordered it. Only the creator and managers
see the job; only the creator sees query strings and credentials of its URLs.
"""

import dataclasses
import os
import pwd

from django.db.models import QuerySet

from cacheapp.downloads.http.redaction import redacted
from cacheapp.downloads.jobs.models import DownloadJob

MANAGE_ALL = "cacheapp_downloads.manage_all_downloads"
MAX_NAME = 200


@dataclasses.dataclass(frozen=True)
class Actor:
    """A client that reads jobs or acts on them."""

    key: str
    """A creator (`DownloadJob.creator`), such as `user:7`. Empty: creates no jobs over HTTP."""
    name: str
    """For people: `user 7 (ann)`, `token nightly`."""
    via: str
    """Where the action came from: `api`, `page`, `admin`, `command` or `code`."""
    manages_all: bool = False
    """Whether it may see and change the jobs of all creators."""


CODE = Actor("", "code of this project", "code", manages_all=True)
RETENTION = Actor("", "retention", "code", manages_all=True)
BROKER = Actor("", "the broker did not accept it", "code", manages_all=True)


def terminal_actor() -> Actor:
    """Return the user of this machine that runs this process, as an actor."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as a user that has no entry
        name = str(os.getuid())
    return Actor("", f"terminal of {name}", "command", manages_all=True)


def visible_jobs(actor: Actor) -> QuerySet[DownloadJob]:
    """Return the jobs that an actor may see: its own, or all."""
    jobs = DownloadJob.objects.all()
    if actor.manages_all:
        return jobs
    return jobs.filter(creator=actor.key) if actor.key else jobs.none()


def is_creator(actor: Actor, job: DownloadJob) -> bool:
    """Return whether the actor ordered the job; `False` for a job without a creator."""
    return bool(actor.key) and job.creator == actor.key


def shown_url(url: str, *, whole: bool) -> str:
    """Return a URL for display: `whole` for the creator, otherwise without its secrets."""
    return url if whole else redacted(url)


def shown_source(source: str, *, whole: bool) -> str:
    """Return the source of a job for display, which may be several URLs with spaces between them."""
    return source if whole else " ".join(redacted(word) for word in source.split(" "))
