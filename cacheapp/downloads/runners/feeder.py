"""Brings a source's files to a run, batch by batch, so that a long listing never stands in memory.

First the files that have rows already, then those that the source still has. A batch gets its rows
before it is fetched, together with the mark up to which the source was read: whoever goes on after
a kill misses no file and makes none twice; nor does who writes a batch again because the database went
away before it said that it had it.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from uuid import UUID

from django.db import Error, InterfaceError, OperationalError, connection

from cacheapp.downloads.engine.run import JobRun
from cacheapp.downloads.jobs import listing_rows, repository
from cacheapp.downloads.jobs.listing_rows import Batch
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner
from cacheapp.downloads.sources.base import Source, SourceRefused, batches

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOCKED_S = 1.0
BATCH_FILES = 500
FULL = 2000
"""Files that may wait in the run before the source is read on."""


class Feeder:
    """A thread of its own, with a database connection of its own."""

    def __init__(self, job: DownloadJob, owner: JobOwner, run: JobRun, source: Source) -> None:
        self._job = job
        self._owner = owner
        self._run = run
        self._source = source
        self._thread = threading.Thread(target=self._feed, name="downloads-feeder", daemon=True)

    def start(self) -> None:
        """Begin to feed; the run hears of the end, or is stopped with the reason."""
        self._thread.start()

    def join(self, within_s: float) -> None:
        """Wait for the thread: it looks at the run's end between two lots."""
        self._thread.join(within_s)

    def _feed(self) -> None:
        try:
            if self._known() and (self._job.listed_all or self._listed()):
                self._run.finish_feeding()
        except (SourceRefused, Error) as exc:
            self._run.stop(str(exc), keep=True)
        except Exception as exc:
            logger.exception("feeding job %s", self._job.id)
            self._run.stop(f"internal error: {type(exc).__name__}", keep=True)
        finally:
            connection.close()

    def _asked(self, ask: Callable[[], T]) -> T:
        """Ask the database; while it is locked or away, again: what is asked may be asked twice."""
        while True:
            try:
                return ask()
            except (OperationalError, InterfaceError) as exc:
                connection.close()
                logger.warning("no files fed: %s", exc, extra={"event": "feed_failed"})
                if self._run.stopped is not None:
                    raise
                threading.Event().wait(_LOCKED_S)

    def _known(self) -> bool:
        """Feed the files that have rows; return whether the run still wants more."""
        after = -1
        while items := self._asked(
            partial(repository.unfinished, self._job.id, after, BATCH_FILES)
        ):
            after = items[-1].position
            self._run.feed(items)
            if not self._run.wait_for_queue_space(FULL):
                return False
        return True

    def _listed(self) -> bool:
        """Feed what the source has behind the job's mark."""
        job_id: UUID = self._job.id
        run = (job_id, self._owner, self._run.plan.token)
        after = self._job.listed_to
        for entries, mark in batches(self._source.entries(after), BATCH_FILES):
            added = self._asked(partial(listing_rows.add_files, *run, Batch(entries, after, mark)))
            after = mark
            if added is None:
                return False  # somebody else has the job now; the next flush says so
            self._run.count_refused(added.refused)
            if added.items:
                self._run.feed(added.items)
            if not self._run.wait_for_queue_space(FULL):
                return False
        if not self._asked(partial(listing_rows.mark_listed_all, *run)):
            return False
        if not self._asked(DownloadFile.objects.filter(job=job_id).exists):
            self._run.stop("there is no file: nothing was listed", keep=True)
        return True
