"""Publishes a run's current rate and transfers in the default cache, which all workers share.

For display only: the cache may evict it at any time. An error of the cache never affects the job.
"""

import logging
from typing import Any
from uuid import UUID

from django.core.cache import cache

from cacheapp import clock
from cacheapp.downloads.engine.estimate import ProgressMeter, Sample
from cacheapp.downloads.engine.run import JobRun

logger = logging.getLogger(__name__)

MAX_FILES = 20
RATES_S = 600
"""How far back the published rates go."""
_RATE_GAP_S = 2.0
_KEEP_S = 10


def publish(run: JobRun, meter: ProgressMeter, files_total: int | None) -> None:
    """Put the rate, the time left and the files in transfer of a run into the cache."""
    moving = run.active_files()
    active_bytes = sum(done for _, done, _ in moving)
    sample = Sample(clock.monotonic_s(), run.changes()[1], active_bytes)
    left_s = meter.update(sample, files_total).left_s
    seen = {
        "rate_bps": round(meter.estimate.rate_bps),
        "eta_s": None if left_s is None else round(left_s),
        "files_moving": len(moving),
        "retries": run.retries_made,
        "moving": [
            {"name": name, "bytes_done": done, "bytes_total": total}
            for name, done, total in moving[:MAX_FILES]
        ],
    }
    try:
        cache.set(_key(run.plan.job), seen, _KEEP_S)
        _publish_rate(run.plan.job, meter.estimate.rate_bps)
    except Exception as exc:  # noqa: BLE001 (any cache backend may be configured)
        logger.debug("job %s: live progress not published: %s", run.plan.job, exc)


def _publish_rate(job_id: UUID, rate_bps: float) -> None:
    """Append to the rates of the last ten minutes, which outlive the run and its process."""
    now_s = clock.wall_s()
    rates = [one for one in rates_of(job_id) if one[0] > now_s - RATES_S]
    if not rates or now_s - rates[-1][0] >= _RATE_GAP_S:
        rates.append((now_s, round(rate_bps)))
        cache.set(f"{_key(job_id)}.rates", rates, RATES_S)


def rates_of(job_id: UUID) -> list[tuple[float, float]]:
    """Return the published rates of a job, as wall time and bytes per second; empty if the cache fails."""
    try:
        return [(one[0], one[1]) for one in cache.get(f"{_key(job_id)}.rates") or []]
    except Exception as exc:  # noqa: BLE001 (as above)
        logger.debug("job %s: rates not read: %s", job_id, exc)
        return []


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
