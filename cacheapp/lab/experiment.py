"""An experiment: a claim, the timed code, and a function that runs it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cacheapp.lab.bench import Bench
from cacheapp.lab.results import ExperimentOutcome


@dataclass(frozen=True)
class Experiment:
    """One claim of the article."""

    name: str
    title: str
    claim: str
    """The claim of the article, in its words if they are few."""
    code: str
    """The source of the timed code."""
    conduct: Callable[[Bench], ExperimentOutcome] = field(repr=False)
