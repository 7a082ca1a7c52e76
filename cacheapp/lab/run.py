"""Runs one experiment, in this process and alone on this host."""

import threading
from collections.abc import Callable

from cacheapp import clock
from cacheapp.lab.bench import Bench, ExperimentFailed, ExperimentProgress, Scale, Stop
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.machine import about
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.results import ClaimFinding, ClaimVerdict, ExperimentOutcome, Result
from cacheapp.processes.exclusive_run import exclusive_run
from cacheapp.processes.servers import ServerFailed
from cacheapp.processes.workers import AnswerLost, Moved, NotReached

_COULD_NOT = (ExperimentFailed, ServerFailed, NotReached, AnswerLost, Moved)


class UnknownExperiment(Exception):
    """There is no experiment of this name; the message lists all names."""


def find(name: str) -> Experiment:
    """Return the experiment, or raise `UnknownExperiment`."""
    if name not in EXPERIMENTS:
        raise UnknownExperiment(f"no experiment {name!r}; expected one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def run(
    name: str,
    *,
    full: bool = False,
    progress: Callable[[ExperimentProgress], None] = lambda _: None,
    stop: Stop | None = None,
    scale: Scale | None = None,
) -> Result:
    """Run an experiment while no other runs; raise `Busy`, or `RunStopped`.

    A claim that could not be measured is `UNKNOWN` in the result, with the reason. Call it from a
    thread that lives until the end: child processes die with the thread that started them.
    """
    experiment = find(name)
    with exclusive_run(name):
        return conduct(experiment, scale or (Scale.FULL if full else Scale.USUAL), progress, stop)


def conduct(
    experiment: Experiment,
    scale: Scale,
    progress: Callable[[ExperimentProgress], None],
    stop: Stop | None = None,
) -> Result:
    """Run an experiment; for the holder of the exclusive run."""
    where, began_s = about(), clock.monotonic_s()
    bench = Bench(experiment.name, scale, progress, stop or threading.Event())
    try:
        outcome = experiment.conduct(bench)
    except _COULD_NOT as exc:
        outcome = ExperimentOutcome(
            (ClaimFinding(experiment.claim, ClaimVerdict.UNKNOWN, f"could not run: {exc}"),)
        )
    return Result(
        name=experiment.name,
        title=experiment.title,
        claim=experiment.claim,
        code=experiment.code,
        scale=scale,
        findings=outcome.findings,
        panels=outcome.panels,
        notes=outcome.notes,
        seconds=round(clock.monotonic_s() - began_s, 2),
        about=where,
    )
