"""What an experiment is: a claim, the code that is timed, and a function that conducts it."""

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
    """What the article says, in its words where they are few."""
    code: str
    """The source of what is timed."""
    conduct: Callable[[Bench], ExperimentOutcome] = field(repr=False)
