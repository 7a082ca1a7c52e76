"""Places an order once, also where it is sent twice: by a client whose answer was lost, say.

Invariant: of all orders with one key, one makes a job. The unique index on `idempotency_key` holds
it, over all workers: whoever comes second finds the row, or runs into it when writing his own.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError

from cacheapp.downloads.jobs import repository
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.errors import CacheappError


class KeyReused(CacheappError):
    """The key was sent with another order before; nothing was started."""


class IdempotentOrder:
    """Who asks for what, under which key; without one, each is a new order."""

    def __init__(self, who: str, key: str | None, body: Mapping[str, Any]) -> None:
        self.who = who
        self.key = None if key is None else _digest(f"{who}\0{key}")
        self.digest = _digest(json.dumps(body, sort_keys=True)) if key is not None else ""

    def existing_job(self) -> DownloadJob | None:
        """Return the job that an earlier one like this has made; raise `KeyReused`."""
        if self.key is None:
            return None
        job = DownloadJob.objects.filter(idempotency_key=self.key).first()
        if job is not None and job.idempotency_digest != self.digest:
            raise KeyReused(f"the key was used for another order, job {job.id}; expected a new one")
        return job

    def create_job(
        self, order: DownloadRequest, owner: JobOwner | None
    ) -> tuple[DownloadJob, bool]:
        """Return the job, and whether it was made now; raise `KeyReused`."""
        facts = {"idempotency_key": self.key, "idempotency_digest": self.digest}
        try:
            return repository.create(order, owner, created_by=self.who[:200], **facts), True
        except IntegrityError:  # the other one was quicker by a moment
            job = self.existing_job()
            if job is None:
                raise
            return job, False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
