"""Computing: threads do not speed up CPU-bound work, processes do."""

import statistics
from dataclasses import dataclass
from typing import Any

from cacheapp.lab.bench import Bench, Scale, listing
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.interpreters import Interpreter, others
from cacheapp.lab.machine import cores
from cacheapp.lab.results import ClaimFinding, ClaimVerdict, ExperimentOutcome, Measure, Panel
from cacheapp.lab.timed import computing

CLAIM_THREADS = (
    "threads do not make CPU-bound work faster, because only one executes at a time (GIL)"
)
CLAIM_PROCESSES = "processes make CPU-bound work faster, up to the number of cores"
GAIN = 1.2
"""A speed-up from this factor on counts."""


@dataclass(frozen=True)
class ComputingParameters:
    """Tasks, the size of each, and repeats."""

    tasks: int
    below: int
    repeats: int


PARAMETERS = {
    Scale.SMALL: ComputingParameters(4, 3_000, 1),
    Scale.USUAL: ComputingParameters(8, 30_000, 3),
    Scale.FULL: ComputingParameters(16, 100_000, 5),
}


@dataclass(frozen=True)
class Row:
    """One way to do it: `workers` threads or processes; and with which interpreter, if another."""

    way: str
    workers: int
    other: Interpreter | None = None

    @property
    def label(self) -> str:
        """Its label."""
        name = self.way if self.way == "one by one" else f"{self.workers} {self.way}"
        name = name.removesuffix("es") if name == "1 processes" else name
        return f"{name}, Python {self.other.version}" if self.other else name


def conduct(bench: Bench) -> ExperimentOutcome:
    """Run the same tasks in all ways, in turn."""
    plan, here = PARAMETERS[bench.scale], cores()
    free = [one for one in others() if not one.gil]
    rows = _rows(plan, here, free)
    bench.expect(len(rows) * plan.repeats)
    found: dict[Row, list[float]] = {row: [] for row in rows}
    for _ in range(plan.repeats):
        for row, samples in found.items():
            with bench.step(row.label):
                samples.append(_once(bench, plan, row)["seconds"])
    medians = {row: statistics.median(samples) for row, samples in found.items()}
    measures = tuple(Measure(row.label, tuple(samples)) for row, samples in found.items())
    title = f"{plan.tasks} tasks, each counting the primes below {plan.below:,}"
    return ExperimentOutcome(
        (
            judge_threads(medians[rows[0]], medians[rows[1]], rows[1].workers),
            judge_processes(
                medians[rows[0]],
                {row.workers: medians[row] for row in rows if row.way == "processes"},
                here,
            ),
        ),
        (Panel(title, "s", measures),),
        _notes(medians, rows, free),
    )


def _rows(plan: ComputingParameters, here: int, free: list[Interpreter]) -> list[Row]:
    counts = sorted({1, here, 2 * here, plan.tasks})
    ours = [Row("one by one", 1), Row("threads", plan.tasks)]
    return [
        *ours,
        *(Row("processes", count) for count in counts),
        *(Row(row.way, row.workers, one) for one in free for row in ours),
    ]


def _once(bench: Bench, plan: ComputingParameters, row: Row) -> dict[str, Any]:
    given = (plan.below, plan.tasks, row.way, row.workers)
    if row.other is None:
        found: dict[str, Any] = bench.measure(computing.measure, *given)
    else:
        found = bench.measure(computing.measure, *given, python=row.other.path)
    return found


def judge_threads(alone_s: float, threads_s: float, threads: int) -> ClaimFinding:
    """Return whether threads gave no speed-up."""
    speed = alone_s / threads_s
    why = (
        f"{threads} threads took {threads_s:.2f} s for what took {alone_s:.2f} s one by one: "
        f"{speed:.2f} times the speed"
    )
    held = speed < GAIN
    return ClaimFinding(
        CLAIM_THREADS,
        ClaimVerdict.HOLDS if held else ClaimVerdict.DOES_NOT_HOLD,
        why,
        figure=f"{speed:.2f} times the speed with {threads} threads",
        # Threads that do execute at the same time gain on a busy machine too: each gets its share.
        load_causes=(ClaimVerdict.DOES_NOT_HOLD,),
    )


def judge_processes(alone_s: float, processes: dict[int, float], cores: int) -> ClaimFinding:
    """Return whether processes gave a speed-up up to the number of cores, and no more beyond it."""
    if cores == 1:
        why = "this machine has one core"
        return ClaimFinding(CLAIM_PROCESSES, ClaimVerdict.UNKNOWN, why, why)
    speeds = {count: alone_s / took_s for count, took_s in processes.items()}
    described = ", ".join(
        f"{speed:.2f} times with {count}" for count, speed in sorted(speeds.items())
    )
    why = f"the speed of one by one on {cores} cores: {described}"
    verdict = ClaimVerdict.HOLDS
    enough = 1 + (cores - 1) / 2
    if speeds[cores] < enough:
        verdict = ClaimVerdict.DOES_NOT_HOLD
        why = f"{why}; expected at least {enough:g} with {cores}"
    elif max(speeds.values()) > speeds[cores] * GAIN:
        verdict = ClaimVerdict.DOES_NOT_HOLD
        why = f"{why}; more processes than cores were even faster"
    return ClaimFinding(
        CLAIM_PROCESSES,
        verdict,
        why,
        figure=f"{speeds[cores]:.2f} times the speed with {cores} processes",
        # Beside others, each further process gets a further share of the cores.
        load_causes=(ClaimVerdict.HOLDS, ClaimVerdict.DOES_NOT_HOLD),
    )


def _notes(medians: dict[Row, float], rows: list[Row], free: list[Interpreter]) -> tuple[str, ...]:
    if not free:
        return ("No free-threaded Python (python3.13t, python3.14t, …) was found on PATH.",)
    found = []
    for one in free:
        alone, threads = (medians[row] for row in rows if row.other == one)
        speed = alone / threads
        found.append(f"Python {one.version} has no GIL: threads gave {speed:.2f} times the speed.")
    return tuple(found)


EXPERIMENT = Experiment(
    name="computing",
    title="Computing: work for the processor",
    claims=(CLAIM_THREADS, CLAIM_PROCESSES),
    code=listing(
        computing.count_primes, computing.one_by_one, computing.by_threads, computing.by_processes
    ),
    conduct=conduct,
)
