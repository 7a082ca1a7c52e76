"""What is wanted of the shared cache, as ratios, and what was found. Pure."""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

Samples = Mapping[str, Mapping[str, Sequence[float]]]
Figures = Mapping[str, Mapping[str, float]]
"""By measure and cache; one number each, the median where there are many."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """A bound on the ratio of our figure to another one of the same run."""

    measure: str
    bound: float
    against: str | None = None
    """The cache whose figure ours is divided by; `None` where the figure is a ratio already."""
    at_least: bool = False
    """Whether more is better."""
    unit: str = "x"
    """Of a bound on the figure itself."""

    def wanted(self) -> str:
        """Return the goal in words."""
        how = "at least" if self.at_least else "at most"
        of = f"x {self.against}" if self.against else self.unit
        return f"{how} {self.bound:.3g}{of}"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A goal with the figures that belong to it; `None` is what was not measured."""

    goal: Goal
    ours: float | None
    other: float | None

    @property
    def ratio(self) -> float | None:
        """Our figure over the other one's."""
        if self.goal.against is None:
            return self.ours
        if self.ours is None or not self.other:
            return None
        return self.ours / self.other

    @property
    def verdict(self) -> str:
        """`met`, `MISSED` or `not measured`."""
        ratio = self.ratio
        if ratio is None:
            return "not measured"
        bound = self.goal.bound
        return "met" if (ratio >= bound if self.goal.at_least else ratio <= bound) else "MISSED"


GET = "get, small dict"
MISS = "get, missing"
SET = "set, small dict"
INCR = "incr"
REQUEST = "request"
AGET_CALL = "aget, small dict"
AGET = "aget over get"
MIX = "mix, operations/s"
MIX_TAIL = "mix, p99.9 of get"
BURNING_TAIL = "p99.9 of set beside burning threads"
PAGE = "page, requests/s"
MEMORY_MIB = "memory, MiB"
MEMORY = "memory over one copy"
GROWTH = "get, most over fewest entries"

GOALS = (
    Goal(GET, 0.6, "locmem"),
    Goal(MISS, 0.5, "locmem"),
    Goal(SET, 1.05, "locmem"),
    Goal(INCR, 0.85, "locmem"),
    Goal(REQUEST, 0.7, "locmem"),
    Goal(REQUEST, 1 / 30, "diskcache"),
    Goal(AGET, 2.0),
    Goal(MIX, 10.0, "diskcache", at_least=True),
    Goal(MIX, 20.0, "django-redis", at_least=True),
    Goal(MIX_TAIL, 1.0, "diskcache"),
    Goal(BURNING_TAIL, 1.0, "diskcache"),
    Goal(PAGE, 1.0, "locmem", at_least=True),
    Goal(PAGE, 2.0, "diskcache", at_least=True),
    Goal(MEMORY, 1.4),
    Goal(GROWTH, 2.0),
)


def growth_row(entries: int) -> str:
    """Return the name of a row of growth."""
    return f"get of {entries:,} entries"


def figures_of(samples: Samples, workers: int, sizes: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return the median of each measure by cache, and the measures that are ratios of others.

    One copy is what LocMemCache took, divided by the workers: each has one.
    """
    figures = {
        measure: {name: statistics.median(found) for name, found in by_name.items()}
        for measure, by_name in samples.items()
    }
    figures[AGET] = _over(figures, AGET_CALL, GET)
    figures[GROWTH] = _over(figures, growth_row(max(sizes)), growth_row(min(sizes)))
    memory = figures.get(MEMORY_MIB, {})
    if "locmem" in memory:
        one_copy = memory["locmem"] / workers
        figures[MEMORY] = {name: taken / one_copy for name, taken in memory.items()}
    return figures


def _over(figures: Figures, above: str, below: str) -> dict[str, float]:
    """Return the ratio of two measures, for each cache that has both."""
    bases = figures.get(below, {})
    return {
        name: value / bases[name]
        for name, value in figures.get(above, {}).items()
        if bases.get(name)
    }


def judge(figures: Figures, ours: str, goals: Iterable[Goal] = ()) -> list[Finding]:
    """Return a finding for each goal, with the figures of the cache `ours`."""
    return [
        Finding(
            goal,
            figures.get(goal.measure, {}).get(ours),
            figures.get(goal.measure, {}).get(goal.against) if goal.against else None,
        )
        for goal in goals or GOALS
    ]


def as_text(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the goals table, a line each."""
    yield f"{'measure':<38}{'goal':<26}{'ours':>12}{'other':>12}{'ratio':>9}  verdict"
    for found in findings:
        ours, other, ratio = _cells(found)
        yield (
            f"{found.goal.measure:<38}{found.goal.wanted():<26}{ours:>12}{other:>12}{ratio:>9}"
            f"  {found.verdict}"
        )


def as_markdown(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the goals table for a page."""
    yield "| measure | goal | ours | other | ratio | |"
    yield "|---|---|---|---|---|---|"
    for found in findings:
        cells = (found.goal.measure, found.goal.wanted(), *_cells(found), found.verdict)
        yield f"| {' | '.join(cells)} |"


def as_json(found: Finding) -> dict[str, object]:
    """Return the finding for a file."""
    return {
        "measure": found.goal.measure,
        "goal": found.goal.wanted(),
        "ours": found.ours,
        "other": found.other,
        "ratio": found.ratio,
        "verdict": found.verdict,
    }


def medians_as_markdown(figures: Figures) -> Iterator[str]:
    """Yield all medians for a page: a row for each measure, a column for each cache."""
    names = list(dict.fromkeys(name for by_name in figures.values() for name in by_name))
    yield f"| median | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for measure, by_name in figures.items():
        if by_name:
            cells = (number(by_name.get(name)) for name in names)
            yield f"| {measure} | {' | '.join(cells)} |"


def _cells(found: Finding) -> tuple[str, str, str]:
    ours, other = (number(value) for value in (found.ours, found.other))
    return ours, other, "-" if found.ratio is None else f"{found.ratio:.3g}"


def number(value: float | None) -> str:
    """Return a number with three digits, or whole from a thousand on; a dash if there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"  # noqa: PLR2004 (four digits)
