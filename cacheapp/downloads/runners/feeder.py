"""Passes a source's files to a run in batches, so that a long listing is never in memory as a whole.

First come the files that have rows already, then the rest of the source. The rows of a batch and its
position in the source are written in one transaction before the batch is fetched. So a process that
resumes the job misses no file and adds none twice, and neither does a batch that is written again
because the connection broke before the database confirmed it.
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
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.sources.base import ListingTooLong, Source, SourceRefused, batches
from cacheapp.downloads.sources.synced_source import SyncedSource

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOCKED_S = 1.0
BATCH_FILES = 500
FULL = 2000
"""Files that may wait in the run; beyond that, the source is not read further."""
FULL_OF_ORDERED = 10_000
"""The same for a job without a source: its files may come from many hosts, one of which is slow."""


class Feeder:
    """A thread with its own database connection that feeds one run."""

    def __init__(
        self, job: DownloadJob, owner: JobOwner, run: JobRun, source: Source | None
    ) -> None:
        """`source`: `None` if all files have rows."""
        self._job = job
        self._owner = owner
        self._run = run
        self._source = source
        self._thread = threading.Thread(target=self._feed, name="downloads-feeder", daemon=True)

    def start(self) -> None:
        """Start to feed; at the end the run is notified, or stopped with the reason."""
        self._thread.start()

    def join(self, within_s: float) -> None:
        """Wait for the thread, which notices the run's end between two batches."""
        self._thread.join(within_s)

    def _feed(self) -> None:
        try:
            if self._feed_known() and (self._job.listed_all or self._feed_listed()):
                self._run.finish_feeding()
        except ListingTooLong as exc:
            self._run.finish_feeding(left_out=str(exc))
        except (SourceRefused, Error) as exc:
            self._run.stop(str(exc), keep=True)
        except Exception as exc:
            logger.exception("job %s: feeding failed", self._job.id)
            self._run.stop(f"internal error: {type(exc).__name__}", keep=True)
        finally:
            connection.close()

    def _retried(self, function: Callable[[], T]) -> T:
        """Call a function that may run twice; repeat it while the database is locked or away."""
        while True:
            try:
                return function()
            except (OperationalError, InterfaceError) as exc:
                connection.close()
                logger.warning("no files added to the run: %s", exc, extra={"event": "feed_failed"})
                if self._run.stopped is not None:
                    raise
                threading.Event().wait(_LOCKED_S)

    def _feed_known(self) -> bool:
        """Feed the files that have rows; return False if the run has stopped."""
        after = -1
        full = FULL_OF_ORDERED if self._source is None else FULL
        while items := self._retried(
            partial(repository.unfinished_items, self._job.id, after, BATCH_FILES)
        ):
            after = items[-1].position
            self._run.feed(items)
            if not self._run.wait_for_queue_space(full):
                return False
        return True

    @property
    def _unchanged(self) -> int:
        return self._source.unchanged if isinstance(self._source, SyncedSource) else 0

    def _feed_listed(self) -> bool:
        """Feed what follows in the source; return False if the run has stopped or lost its job."""
        if self._source is None:
            raise AssertionError(f"job {self._job.id} is not listed to its end; expected a source")
        job_id: UUID = self._job.id
        run = (job_id, self._owner, self._run.plan.token)
        after, counted = self._job.listed_to, 0
        for entries, mark in batches(self._source.entries(after), BATCH_FILES):
            unchanged = self._unchanged - counted
            batch = Batch(entries, after, mark, unchanged)
            added = self._retried(partial(listing_rows.add_files, *run, batch))
            after, counted = mark, counted + unchanged
            if added is None:
                return False  # another process owns the job; the next flush stops the run
            self._run.count_refused(added.refused)
            if added.items:
                self._run.feed(added.items)
            if not self._run.wait_for_queue_space(FULL):
                return False
        if not self._retried(partial(listing_rows.mark_listed_all, *run)):
            return False
        rows = DownloadFile.objects.filter(job=job_id)
        unsent = DownloadJob.objects.filter(id=job_id, files_unchanged__gt=0)
        if not self._retried(lambda: rows.exists() or unsent.exists()):
            self._run.stop("the listing is empty: there is no file to fetch", keep=True)
        return True
