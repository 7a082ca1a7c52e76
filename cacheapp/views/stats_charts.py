"""The charts of the statistics page: figures of each alias for the last 15 minutes. Pure."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cacheapp.views.sparkline import draw_area

Counts = Mapping[str, int]
Samples = Sequence[tuple[float, Mapping[str, Counts]]]
"""Pairs of a wall time and the counters of each alias."""


Points = list[tuple[float, float]]
"""Pairs of a wall time and a figure."""


@dataclass(frozen=True)
class _Step:
    """The counters of two samples in a row."""

    at_s: float
    took_s: float
    old: Counts
    new: Counts

    def grown(self, name: str) -> int:
        """Return by how much a counter grew; 0 after its file was removed."""
        return max(0, self.new.get(name, 0) - self.old.get(name, 0))


@dataclass(frozen=True)
class Chart:
    """One small chart: its title, its path (empty: nothing to draw) and its last value for people."""

    title: str
    path: str
    latest: str


def draw_charts(samples: Samples, alias: str, now_s: float, shown_s: float) -> list[Chart]:
    """Return the charts of an alias; none without two samples."""
    own = [(at_s, counts[alias]) for at_s, counts in samples if alias in counts]
    steps = [
        _Step(after[0], after[0] - before[0], before[1], after[1])
        for before, after in itertools.pairwise(own)
        if after[0] > before[0]
    ]
    if not steps:
        return []
    space = [
        (at_s, 100 * counts["bytes_used"] / counts["bytes_limit"])
        for at_s, counts in own
        if counts.get("bytes_limit")
    ]
    calls = _rates(steps, "hits", "misses", "sets", "deletes")
    figures: list[tuple[str, Points, float | None, Callable[[float], str]]] = [
        ("Hit rate", _hit_rates(steps), 100, _percent),
        ("Calls per second", calls, None, _per_second),
        ("Space used of the limit", space, 100, _percent),
        ("Evictions per second", _rates(steps, "evictions"), None, _per_second),
        ("Waits for a lease per second", _rates(steps, "lease_waits"), None, _per_second),
    ]
    return [
        Chart(title, draw_area(points, now_s, shown_s, most), shown(points[-1][1]))
        for title, points, most, shown in figures
        if points
    ]


def _rates(steps: Sequence[_Step], *names: str) -> Points:
    """Return the growth of counters per second; empty if the backend does not count them."""
    if not any(name in steps[-1].new for name in names):
        return []
    return [(it.at_s, sum(map(it.grown, names)) / it.took_s) for it in steps]


def _hit_rates(steps: Sequence[_Step]) -> Points:
    """Return the share of the reads that were hits, in percent."""
    return [
        (it.at_s, 100 * it.grown("hits") / reads)
        for it in steps
        if (reads := it.grown("hits") + it.grown("misses")) > 0
    ]


def _percent(value: float) -> str:
    return f"{value:.1f} %"


def _per_second(value: float) -> str:
    return f"{value:,.1f}"
