"""Publishes a run's current rate and transfers in the default cache, which all workers share.

For display only: the cache may evict it at any time. An error of the cache never affects the job.
"""

import dataclasses
import logging
from typing import Any
from uuid import UUID

from django.core.cache import cache

from cacheapp import clock
from cacheapp.downloads.engine.run import JobRun

logger = logging.getLogger(__name__)

MAX_FILES = 20
_KEEP_S = 10


@dataclasses.dataclass
class RateMeter:
    """The rate of one run, smoothed over a few updates."""

    seen_s: float = 0.0
    seen_bytes: int = 0
    rate_bps: float = 0.0

    def update(self, now_s: float, bytes_done: int) -> float:
        """Return the current bytes per second."""
        if self.seen_s and now_s > self.seen_s:
            latest = max(0, bytes_done - self.seen_bytes) / (now_s - self.seen_s)
            self.rate_bps = latest if not self.rate_bps else 0.7 * self.rate_bps + 0.3 * latest
        self.seen_s, self.seen_bytes = now_s, bytes_done
        return self.rate_bps


def publish(run: JobRun, meter: RateMeter) -> None:
    """Put the rate and the files in transfer of a run into the cache."""
    moving = run.active_files()
    seen = {
        "rate_bps": round(meter.update(clock.monotonic_s(), run.changes()[1].bytes_done)),
        "files_moving": len(moving),
        "retries": run.retries_made,
        "moving": [
            {"name": name, "bytes_done": done, "bytes_total": total}
            for name, done, total in moving[:MAX_FILES]
        ],
    }
    try:
        cache.set(_key(run.plan.job), seen, _KEEP_S)
    except Exception as exc:  # noqa: BLE001 (any cache backend may be configured)
        logger.debug("job %s: live progress not published: %s", run.plan.job, exc)


def read(job_id: UUID) -> dict[str, Any] | None:
    """Return what was last published, or `None` if the cache has lost it."""
    try:
        found: dict[str, Any] | None = cache.get(_key(job_id))
    except Exception as exc:  # noqa: BLE001 (as above)
        logger.debug("job %s: live progress not read: %s", job_id, exc)
        return None
    return found


def _key(job_id: UUID) -> str:
    return f"cacheapp.download.{job_id}"
