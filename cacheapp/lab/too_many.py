"""Too many: the number of threads or processes from which more do not help, or do harm."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from cacheapp.lab.bench import Bench, Scale, listing
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.machine import available_mib
from cacheapp.lab.origins import slow_origin
from cacheapp.lab.results import (
    ClaimFinding,
    ClaimVerdict,
    ExperimentOutcome,
    FigureKind,
    Measure,
    Panel,
)
from cacheapp.lab.timed import crowds

CLAIM = "too many concurrent {kind} can result in severely degraded performance"
KINDS = ("threads", "processes")
ANSWER_S = 0.05
SLOWER = 5
"""Severely degraded: this many times the duration of one alone."""
PROCESS_MIB = 5
"""The approximate memory of a forked process; half of the available memory may be used."""
PAYS = 0.8
"""The share of the best throughput that counts as equally good."""


@dataclass(frozen=True)
class TooManyParameters:
    """Numbers of threads and processes, the duration at each number, and repeats."""

    threads: tuple[int, ...]
    processes: tuple[int, ...]
    window_s: float
    repeats: int

    def levels(self, kind: str) -> tuple[int, ...]:
        """Return the numbers of threads, or of processes that fit into memory."""
        if kind == "threads":
            return self.threads
        most = available_mib() / 2 / PROCESS_MIB
        return tuple(members for members in self.processes if members <= max(most, 10))


PARAMETERS = {
    Scale.SMALL: TooManyParameters((1, 20), (1, 5), 0.2, 1),
    Scale.USUAL: TooManyParameters((1, 10, 100, 1000), (1, 10, 100), 0.4, 2),
    Scale.FULL: TooManyParameters(
        (1, 3, 10, 30, 100, 300, 1000), (1, 3, 10, 30, 100, 300, 1000), 3.0, 3
    ),
}


@dataclass(frozen=True)
class Level:
    """The measurements with one number of members; one sample per repeat."""

    kind: str
    work: str
    members: int
    per_second: tuple[float, ...]
    mean_s: tuple[float, ...]
    p99_s: tuple[float, ...]
    memory_mib: tuple[float, ...]


def conduct(bench: Bench) -> ExperimentOutcome:
    """Let groups of growing size wait for a server, then compute."""
    plan = PARAMETERS[bench.scale]
    numbers = {kind: plan.levels(kind) for kind in KINDS}
    bench.expect(len(crowds.WORK) * plan.repeats * sum(map(len, numbers.values())))
    with slow_origin() as origin:
        url = f"{origin.url}/{ANSWER_S}/file"
        levels = [
            _level(bench, plan, kind, work, members, url)
            for work in crowds.WORK
            for kind in KINDS
            for members in numbers[kind]
        ]
    findings = tuple(judge(kind, [one for one in levels if one.kind == kind]) for kind in KINDS)
    return ExperimentOutcome(findings, tuple(_panels(levels)), _notes(max(numbers["processes"])))


def _level(
    bench: Bench, plan: TooManyParameters, kind: str, work: str, members: int, url: str
) -> Level:
    found = []
    for _ in range(plan.repeats):
        with bench.step(f"{members} {kind}, {work}"):
            given = (kind, members, work, url, plan.window_s)
            found.append(bench.measure(crowds.measure, *given, within_s=300.0))
    fields = ("per_second", "mean_s", "p99_s", "memory_mib")
    return Level(kind, work, members, **{it: tuple(one[it] for one in found) for it in fields})


def judge(kind: str, levels: list[Level]) -> ClaimFinding:
    """Return whether the largest number was much slower than one, in either kind of work."""
    described, hurt, worst = [], False, 0.0
    for work in dict.fromkeys(one.work for one in levels):
        its = [one for one in levels if one.work == work]
        rates = {one.members: statistics.median(one.per_second) for one in its}
        times = {one.members: statistics.median(one.mean_s) for one in its}
        fewest, most = min(rates), max(rates)
        enough = PAYS * max(rates.values())
        pays = min(members for members, rate in rates.items() if rate >= enough)
        slower = times[most] / times[fewest]
        worst = max(worst, slower)
        hurt = hurt or slower >= SLOWER or rates[most] < max(rates.values()) / 2
        best = f"{number_of(rates[pays])} a second with {pays}"
        rest = f"; {number_of(rates[most])} with {most}" if most > pays else ""
        described.append(
            f"{work}: {best}, more do not pay{rest}, each {slower:.1f} times as long as one alone"
            if rest
            else f"{work}: {best}, each {slower:.1f} times as long as one alone"
        )
    most = max(one.members for one in levels)
    return ClaimFinding(
        CLAIM.format(kind=kind),
        ClaimVerdict.HOLDS if hurt else ClaimVerdict.DOES_NOT_HOLD,
        "; ".join(described),
        figure=f"with {most:,} {kind}, each takes {worst:,.0f} times as long as one alone",
        load_causes=(ClaimVerdict.HOLDS,),
    )


def number_of(rate: float) -> str:
    """Return a rate in its significant digits."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"  # noqa: PLR2004 (two digits)


def _panels(levels: list[Level]) -> Iterator[Panel]:
    for work in crowds.WORK:
        its = [one for one in levels if one.work == work]
        what = f"{work} ({1000 * ANSWER_S:g} ms each)" if work == "waiting" else work
        yield _panel(f"{what}: throughput", "per second", its, "per_second", 1)
        yield _panel(f"{what}: time of one, mean", "ms", its, "mean_s", 1000)
        yield _panel(f"{what}: time of one, 99th percentile", "ms", its, "p99_s", 1000)
    waits = [one for one in levels if one.work == "waiting"]
    yield _panel("memory while waiting", "MiB", waits, "memory_mib", 1)


def _panel(title: str, unit: str, levels: list[Level], field: str, times: float) -> Panel:
    return Panel(
        title,
        unit,
        tuple(
            Measure(
                "",
                tuple(times * sample for sample in getattr(one, field)),
                group=one.kind,
                at=one.members,
            )
            for one in levels
        ),
        kind=FigureKind.LINES,
        x_title="threads or processes",
        log_y=True,
    )


def _notes(processes: int) -> tuple[str, ...]:
    fewer = f"Processes only up to {processes}: 1,000 are for --full, and for 10 GiB of memory."
    return (
        (
            f"Severely degraded means: half of the best throughput, or {SLOWER} times the time that "
            "one alone takes."
        ),
        "Memory is PSS: what several processes share is divided among them.",
        *([fewer] if processes < max(PARAMETERS[Scale.FULL].processes) else []),
    )


EXPERIMENT = Experiment(
    name="too-many",
    title="Too many threads, too many processes",
    claims=tuple(CLAIM.format(kind=kind) for kind in KINDS),
    code=listing(crowds.wait_for, crowds.compute, crowds.Crowd),
    conduct=conduct,
)
