"""Opens the buckets of jobs that were ordered over HTTP, each in a thread of its own.

Finding credentials may take seconds, for example from an instance's metadata service, and the
coordinator must write the heartbeat of all jobs during that.

Only `DOWNLOAD_BUCKETS` determines a bucket's endpoint and credentials. It is read when the job starts:
a bucket removed from the setting since the order is not listed.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from cacheapp.conf import conf
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.sources.base import ListingTooLong, SourceEntry, SourceRefused
from cacheapp.downloads.sources.name_filter import NameFilter
from cacheapp.downloads.sources.request import find_allowed_bucket
from cacheapp.downloads.sources.s3 import S3Source
from cacheapp.downloads.storage.filenames import NameRules

logger = logging.getLogger(__name__)


class LimitedBucket:
    """A bucket from which a job takes at most `max_files` files."""

    def __init__(self, bucket: S3Source, max_files: int) -> None:
        """Find the only origin of its objects, `origin`; raise `SourceRefused`."""
        self.origin = bucket.resolve_origin()
        self._bucket = bucket
        self._max_files = max_files
        self.identity = bucket.identity
        self.scope = bucket.scope
        self.sign = bucket.sign
        self.trusted = bucket.trusted

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        """Yield what the bucket yields; raise `ListingTooLong` at the first file too many."""
        left = self._max_files
        for found in self._bucket.entries(after):
            if isinstance(found, SourceEntry):
                left -= 1
                if left < 0:
                    most = conf().download_max_files
                    raise ListingTooLong(
                        f"more than {most} files; see DOWNLOAD_MAX_FILES. "
                        f"{found.name[:200]!r} and all files after it were left out"
                    )
            yield found


class BucketOpener:
    """The buckets that are open or being opened. For use by one thread.

    `_lock` guards `_found`, which the opening threads fill.
    """

    def __init__(self, on_open: Callable[[], None]) -> None:
        self._on_open = on_open
        self._lock = threading.Lock()
        self._found: dict[UUID, LimitedBucket | str | None] = {}

    def take(self, job: DownloadJob) -> LimitedBucket | None:
        """Return the bucket of a job once, or `None` while it is being opened; raise `SourceRefused`."""
        with self._lock:
            is_new = job.id not in self._found
            found = self._found.setdefault(job.id, None)
            if found is not None:
                del self._found[job.id]
        if isinstance(found, str):
            raise SourceRefused(found)
        if is_new:
            self._start(job)
        return found

    def _start(self, job: DownloadJob) -> None:
        thread = threading.Thread(
            target=self._open, args=(job,), name="downloads-opener", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as exc:  # the system allows no thread now: the next call tries again
            logger.warning("job %s: its bucket is not opened yet: %s", job.id, exc)
            with self._lock:
                del self._found[job.id]

    def retain(self, jobs: Iterable[UUID]) -> None:
        """Forget the buckets of all other jobs, which were cancelled before they started."""
        kept = set(jobs)
        with self._lock:
            for job_id in self._found.keys() - kept:
                del self._found[job_id]

    def _open(self, job: DownloadJob) -> None:
        found: LimitedBucket | str
        try:
            found = _limited(job)
        except SourceRefused as exc:
            found = str(exc)
        except Exception as exc:
            logger.exception("job %s: its bucket was not opened", job.id)
            found = f"internal error: {type(exc).__name__}"
        with self._lock:
            if job.id in self._found:  # else it is not needed any more
                self._found[job.id] = found
        self._on_open()


def is_listed(job: DownloadJob) -> bool:
    """Return whether the files of a job come from a bucket that the coordinator opens."""
    return bool(job.source) and not job.destination


def _limited(job: DownloadJob) -> LimitedBucket:
    settings = conf()
    place = find_allowed_bucket(job.source, settings.download_buckets)
    bucket = S3Source(
        job.source,
        endpoint=place.endpoint,
        region=place.region,
        anonymous=place.anonymous,
        rules=NameRules(portable=job.portable_names),
        names=NameFilter.of(job.include, job.exclude),
        proxied=settings.download_proxy,
    )
    return LimitedBucket(bucket, settings.download_max_files - job.files_total)
