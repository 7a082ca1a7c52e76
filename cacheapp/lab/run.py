"""Runs one experiment, in this process and alone on this host."""

import dataclasses
import threading
from collections.abc import Callable

from cacheapp import clock
from cacheapp.lab.bench import Bench, ExperimentFailed, ExperimentProgress, Scale, Stop
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.load import judge_under_load
from cacheapp.lab.machine import about, cores_in_use
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.results import ClaimFinding, ClaimVerdict, ExperimentOutcome, Result
from cacheapp.processes.exclusive_run import exclusive_run
from cacheapp.processes.servers import ServerFailed
from cacheapp.processes.workers import AnswerLost, Moved, NotReached

_COULD_NOT = (ExperimentFailed, ServerFailed, NotReached, AnswerLost, Moved)
COULD_NOT_RUN = "could not run"
_WINDOW_S = {Scale.SMALL: 0.05, Scale.USUAL: 0.5, Scale.FULL: 1.0}


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
    others = cores_in_use(_WINDOW_S[scale])
    try:
        outcome = experiment.conduct(bench)
    except _COULD_NOT as exc:
        outcome = ExperimentOutcome(_could_not(experiment, exc))
    # Nothing of the experiment runs any more; what runs now probably ran beside it.
    others = round(max(others, cores_in_use(_WINDOW_S[scale])), 2)
    return Result(
        name=experiment.name,
        title=experiment.title,
        claim=experiment.claim,
        code=experiment.code,
        scale=scale,
        findings=tuple(judge_under_load(it, others, where.cores) for it in outcome.findings),
        panels=outcome.panels,
        notes=outcome.notes,
        seconds=round(clock.monotonic_s() - began_s, 2),
        about=dataclasses.replace(where, others=others),
    )


def _could_not(experiment: Experiment, error: Exception) -> tuple[ClaimFinding, ...]:
    return tuple(
        ClaimFinding(claim, ClaimVerdict.UNKNOWN, f"{COULD_NOT_RUN}: {error}", COULD_NOT_RUN)
        for claim in experiment.claims
    )
