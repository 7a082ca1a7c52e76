"""The charts of the statistics page, from samples of counters."""

from typing import Any

from cacheapp.views.stats_charts import draw_charts


def _samples(*counts: dict[str, int]) -> list[tuple[float, dict[str, dict[str, int]]]]:
    return [(5.0 * number, {"a": one}) for number, one in enumerate(counts)]


def _latest(samples: Any, now_s: float = 10.0) -> dict[str, str]:
    return {chart.title: chart.latest for chart in draw_charts(samples, "a", now_s, 900.0)}


def test_the_figures_are_those_of_the_last_interval() -> None:
    first = {"hits": 100, "misses": 100, "sets": 50}
    second = {"hits": 130, "misses": 110, "sets": 60, "bytes_used": 10, "bytes_limit": 40}
    found = _latest(_samples(first, second))
    assert found["Hit rate"] == "75.0 %"
    assert found["Calls per second"] == "10.0"
    assert found["Space used of the limit"] == "25.0 %"


def test_without_reads_there_is_no_hit_rate() -> None:
    assert "Hit rate" not in _latest(_samples({"hits": 1}, {"hits": 1}))


def test_counters_that_were_removed_are_no_negative_rate() -> None:
    assert _latest(_samples({"sets": 900}, {"sets": 3}))["Calls per second"] == "0.0"


def test_one_sample_is_no_chart() -> None:
    assert draw_charts(_samples({"hits": 1}), "a", 0.0, 900.0) == []


def test_a_rate_that_was_always_0_has_no_line() -> None:
    counts = [{"sets": sets, "evictions": 0} for sets in (1, 9, 9)]
    charts = draw_charts(_samples(*counts), "a", 10.0, 900.0)
    paths = {chart.title: chart.path for chart in charts}
    assert paths["Calls per second"].startswith("M596.7 60L596.7 1.0L600.0 59.0L")
    assert paths["Evictions per second"] == ""
    assert "Waits for a lease per second" not in paths  # nothing counted them
