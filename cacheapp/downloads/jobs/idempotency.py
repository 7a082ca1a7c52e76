"""Recognises an order that a client sends again, for example because the response was lost.

Invariant: of all orders with one key, one makes a job. The unique index on `idempotency_key` ensures it
across all workers: every later order finds the row, or its INSERT fails (`repository.create_once`).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cacheapp.downloads.jobs.actors import Actor
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.errors import CacheappError


class KeyReused(CacheappError):
    """The key was sent with another order before; no job was created."""


class IdempotentOrder:
    """An order's creator, body and key; without a key, each order makes a job of its own."""

    def __init__(self, creator: Actor, key: str | None, body: Mapping[str, Any]) -> None:
        """`key`: as the client sent it; keys of different creators never collide."""
        self.creator = creator
        self.key = None if key is None else _digest(f"{creator.key}\0{key}")
        self.digest = _digest(json.dumps(body, sort_keys=True)) if key is not None else ""

    def existing_job(self) -> DownloadJob | None:
        """Return the job of an earlier order with this key, if any; raise `KeyReused`."""
        if self.key is None:
            return None
        job = DownloadJob.objects.filter(idempotency_key=self.key).first()
        if job is not None and job.idempotency_digest != self.digest:
            raise KeyReused(f"the key was used for another order, job {job.id}; expected a new one")
        return job


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
