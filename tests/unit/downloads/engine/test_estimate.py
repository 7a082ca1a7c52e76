"""The rate and the time left of a run, estimated from its recent progress."""

import pytest

from cacheapp.downloads.engine.estimate import (
    WINDOW_S,
    Estimate,
    ProgressMeter,
    Sample,
    estimate,
    recent,
)
from cacheapp.downloads.plan import JobProgress


def _steady(seconds: int, bps: int, total: int | None, start_s: float = 0.0) -> list[Sample]:
    return [Sample(start_s + s, JobProgress(0, 0, s * bps, total)) for s in range(seconds + 1)]


def test_one_sample_gives_no_estimate() -> None:
    assert estimate(_steady(0, 100, 1000), 1) == Estimate(0.0, None)


def test_a_steady_rate_is_exact() -> None:
    assert estimate(_steady(5, 100, 1000), 1) == Estimate(100.0, 5.0)


def test_only_the_recent_rate_counts() -> None:
    slow = _steady(60, 10, 10_000)
    fast = [Sample(60.0 + s, JobProgress(0, 0, 600 + 100 * s, 10_000)) for s in range(1, 21)]
    assert estimate(slow + fast, 1) == Estimate(100.0, (10_000 - 2600) / 100)
    assert recent(slow + fast)[0].at_s == 80.0 - WINDOW_S


def test_a_pause_does_not_count() -> None:
    before = _steady(5, 100, 1000)
    after = [Sample(3600.0 + s, JobProgress(0, 0, 500 + 100 * s, 1000)) for s in range(3)]
    assert estimate(before + after, 1) == Estimate(100.0, 3.0)


def test_a_rate_of_nothing_predicts_no_end() -> None:
    stalled = [Sample(float(s), JobProgress(0, 0, 500, 1000)) for s in range(6)]
    assert estimate(stalled, 1) == Estimate(0.0, None)


def test_discarded_bytes_do_not_reduce_the_rate() -> None:
    sizes = [0, 100, 200, 0, 100, 200]
    found = estimate([Sample(float(s), JobProgress(0, 0, b, 1000)) for s, b in enumerate(sizes)], 1)
    assert found == Estimate(80.0, 10.0)


def test_the_time_left_falls_while_one_large_file_of_unknown_size_arrives() -> None:
    meter = ProgressMeter()
    left = []
    for s in range(1, 9):  # one file of 1000 bytes is complete, another one arrives
        progress = JobProgress(1, 0, 1000 + 100 * s)
        left.append(meter.update(Sample(float(s), progress, active_bytes=100 * s), 2).left_s)
    assert left == [None, *(pytest.approx((1000 - 100 * s) / 100) for s in range(2, 9))]


def test_a_listing_that_continues_has_no_time_left() -> None:
    samples = [Sample(float(s), JobProgress(s, 0, 100 * s)) for s in range(5)]
    assert estimate(samples, None) == Estimate(100.0, None)


def test_empty_files_are_counted_one_by_one() -> None:
    samples = [Sample(float(s), JobProgress(10 * s, 0, 0)) for s in range(5)]
    assert estimate(samples, 100) == Estimate(0.0, 6.0)
