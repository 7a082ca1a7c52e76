"""Estimates the rate and the time left of a run from its recent progress.

The API, the page and the terminal show this estimate. Nothing here reads a clock or does I/O.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from cacheapp.downloads.plan import JobProgress

WINDOW_S = 15.0
"""How far back the recent rate looks."""
PAUSE_S = 5.0
"""A longer time between two samples is a pause: the process or the machine was suspended."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """The progress of a run at one moment."""

    at_s: float
    progress: JobProgress
    active_bytes: int = 0
    """The part of `progress.bytes_done` that belongs to files in transfer."""

    @property
    def files_ended(self) -> int:
        """Files that succeeded or failed."""
        return self.progress.files_done + self.progress.files_failed


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes per second, and seconds left; `None` if unknown."""

    rate_bps: float = 0.0
    left_s: float | None = None


def recent(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return the samples of the last `WINDOW_S`, from the last pause on."""
    first = len(samples) - 1
    while (
        first > 0
        and samples[-1].at_s - samples[first - 1].at_s <= WINDOW_S
        and samples[first].at_s - samples[first - 1].at_s <= PAUSE_S
    ):
        first -= 1
    return samples[max(0, first) :]


def estimate(samples: Sequence[Sample], files_total: int | None) -> Estimate:
    """Estimate from samples in order of time; `files_total` is `None` during a listing.

    Without the sizes of all files, those left count as large as the average of the complete ones.
    Bytes that are discarded, because a file starts again, do not reduce the rate.
    """
    window = recent(samples)
    if len(window) < 2 or window[-1].at_s <= window[0].at_s:  # noqa: PLR2004 (a rate needs two)
        return Estimate()
    last, took_s = window[-1], window[-1].at_s - window[0].at_s
    pairs = list(itertools.pairwise(window))
    came = sum(max(0, b.progress.bytes_done - a.progress.bytes_done) for a, b in pairs)
    rate_bps = came / took_s
    left_bytes = _left_bytes(last, files_total)
    if left_bytes is not None and rate_bps:
        return Estimate(rate_bps, left_bytes / rate_bps)
    ended = last.files_ended - window[0].files_ended
    if files_total is not None and ended > 0 and not rate_bps:  # empty files
        return Estimate(0.0, max(0, files_total - last.files_ended) * took_s / ended)
    return Estimate(rate_bps)


def _left_bytes(last: Sample, files_total: int | None) -> float | None:
    progress = last.progress
    if progress.bytes_total is not None:
        return max(0, progress.bytes_total - progress.bytes_done)
    if files_total is None or not progress.files_done:
        return None
    average = max(0, progress.bytes_done - last.active_bytes) / progress.files_done
    return max(0.0, average * (files_total - last.files_ended) - last.active_bytes)


class ProgressMeter:
    """Keeps the samples of one run that an estimate needs. For use by one thread.

    A run ends with a pause of its job, so the time of the pause is in no sample.
    """

    def __init__(self) -> None:
        self._samples: Sequence[Sample] = ()
        self.estimate = Estimate()

    def update(self, sample: Sample, files_total: int | None) -> Estimate:
        """Add a sample; return the new estimate."""
        self._samples = recent([*self._samples, sample])
        self.estimate = estimate(self._samples, files_total)
        return self.estimate
