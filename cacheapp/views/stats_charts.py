"""The charts of the statistics page: figures of each alias for the last 15 minutes. Pure."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cacheapp.views.sparkline import draw_area

Counts = Mapping[str, int]
Samples = Sequence[tuple[float, Mapping[str, Counts]]]
"""Pairs of a wall time and the counters of each alias."""


@dataclass(frozen=True)
class Chart:
    """One small chart: its title, its path (empty: nothing to draw) and its last value for people."""

    title: str
    path: str
    latest: str


def draw_charts(samples: Samples, alias: str, now_s: float, shown_s: float) -> list[Chart]:
    """Return the charts of an alias; none without two samples."""
    own = [(at_s, counts[alias]) for at_s, counts in samples if alias in counts]
    pairs = [
        (after[0], after[0] - before[0], before[1], after[1])
        for before, after in itertools.pairwise(own)
        if after[0] > before[0]
    ]
    if not pairs:
        return []

    def rates(*names: str) -> list[tuple[float, float]]:
        if not any(name in own[-1][1] for name in names):
            return []  # this backend does not count it
        return [
            (at_s, max(0.0, sum(_grown(old, new, name) for name in names)) / took_s)
            for at_s, took_s, old, new in pairs
        ]

    hits = [
        (at_s, 100 * _grown(old, new, "hits") / reads)
        for at_s, _, old, new in pairs
        if (reads := _grown(old, new, "hits") + _grown(old, new, "misses")) > 0
    ]
    memory = [
        (at_s, 100 * counts["bytes_used"] / counts["bytes_reserved"])
        for at_s, counts in own
        if counts.get("bytes_reserved")
    ]
    figures: list[tuple[str, list[tuple[float, float]], float | None, Callable[[float], str]]] = [
        ("Hit rate", hits, 100, _percent),
        ("Calls per second", rates("hits", "misses", "sets", "deletes"), None, _per_second),
        ("Memory used of the limit", memory, 100, _percent),
        ("Evictions per second", rates("evictions"), None, _per_second),
        ("Waits for a lease per second", rates("lease_waits"), None, _per_second),
    ]
    return [
        Chart(title, draw_area(points, now_s, shown_s, most), shown(points[-1][1]))
        for title, points, most, shown in figures
        if points
    ]


def _grown(old: Counts, new: Counts, name: str) -> int:
    """Return by how much a counter grew; 0 after its file was removed."""
    return max(0, new.get(name, 0) - old.get(name, 0))


def _percent(value: float) -> str:
    return f"{value:.1f} %"


def _per_second(value: float) -> str:
    return f"{value:,.1f}"
