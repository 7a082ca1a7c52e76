"""Starting: the cost of a thread and of a process."""

import statistics
from dataclasses import dataclass

from cacheapp.lab.bench import Bench, Scale, listing
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.results import ClaimFinding, ClaimVerdict, ExperimentOutcome, Measure, Panel
from cacheapp.lab.timed import starting

CLAIM_LONGER = "a process takes longer to initialize than a thread"
CLAIM_ZERO = "“Done creating threads: 0.00 s”"
CREW = (5, 10)
"""The numbers of threads in the two listings of the article."""
METHODS = ("fork", "forkserver", "spawn")


@dataclass(frozen=True)
class StartingParameters:
    """How often a thread and a process are started."""

    threads: int
    processes: int


PARAMETERS = {
    Scale.SMALL: StartingParameters(5, 2),
    Scale.USUAL: StartingParameters(100, 20),
    Scale.FULL: StartingParameters(500, 100),
}


def conduct(bench: Bench) -> ExperimentOutcome:
    """Start threads and processes one after the other, then groups of threads at once."""
    plan = PARAMETERS[bench.scale]
    bench.expect(1 + len(METHODS) + len(CREW))
    found = {}
    for what in ("thread", *METHODS):
        with bench.step(what):
            count = plan.threads if what == "thread" else plan.processes
            found[what] = tuple(1000 * it for it in bench.measure(starting.times, what, count))
    crews = {}
    for size in CREW:
        with bench.step(f"{size} threads"):
            crews[size] = tuple(
                1000 * it for it in bench.measure(starting.creations, size, plan.threads)
            )
    one = Panel(
        "until the first line runs",
        "ms",
        tuple(Measure(_NAMES[what], samples) for what, samples in found.items()),
    )
    many = Panel(
        "creating and starting a crew of threads",
        "ms",
        tuple(Measure(f"{size} threads", samples) for size, samples in crews.items()),
    )
    medians = {what: statistics.median(samples) for what, samples in found.items()}
    return ExperimentOutcome(
        (
            judge_longer(medians),
            judge_zero({size: statistics.median(samples) for size, samples in crews.items()}),
        ),
        (one, many),
        ("A spawned process has loaded only this module; with Django it takes longer.",),
    )


_NAMES = {
    "thread": "a thread",
    "fork": "a process, by fork",
    "forkserver": "a process, by forkserver",
    "spawn": "a process, by spawn",
}


def judge_longer(medians_ms: dict[str, float]) -> ClaimFinding:
    """Return whether every kind of process took longer than a thread."""
    thread = medians_ms["thread"]
    others = {what: took for what, took in medians_ms.items() if what != "thread"}
    described = ", ".join(
        f"{what} {took:.2f} ms ({took / thread:.0f} times)" for what, took in others.items()
    )
    least = min(others.values())
    return ClaimFinding(
        CLAIM_LONGER,
        ClaimVerdict.HOLDS if least > thread else ClaimVerdict.DOES_NOT_HOLD,
        f"a thread runs after {thread:.3f} ms; {described}",
        figure=f"{least / thread:.0f} times as long",
        load_causes=(ClaimVerdict.DOES_NOT_HOLD,),
    )


def judge_zero(medians_ms: dict[int, float]) -> ClaimFinding:
    """Return whether the times are 0.00 s in two digits."""
    described = ", ".join(
        f"{size} threads {took / 1000:.4f} s" for size, took in medians_ms.items()
    )
    held = all(f"{took / 1000:.2f}" == "0.00" for took in medians_ms.values())
    most = max(medians_ms)
    return ClaimFinding(
        CLAIM_ZERO,
        ClaimVerdict.HOLDS if held else ClaimVerdict.DOES_NOT_HOLD,
        described,
        figure=f"{medians_ms[most] / 1000:.4f} s for {most} threads",
        load_causes=(ClaimVerdict.DOES_NOT_HOLD,),
    )


EXPERIMENT = Experiment(
    name="starting",
    title="Starting: a thread, a process",
    claims=(CLAIM_LONGER, CLAIM_ZERO),
    code=listing(
        starting.start_thread, starting.first_line, starting.start_process, starting.create_threads
    ),
    conduct=conduct,
)
