"""An experiment: a claim, the timed code, and a function that runs it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cacheapp.lab.bench import Bench
from cacheapp.lab.results import ExperimentOutcome


@dataclass(frozen=True)
class Experiment:
    """Claims of the article that one measurement decides."""

    name: str
    title: str
    claims: tuple[str, ...]
    """What the article claims, in its words if they are few: one finding for each, in this order."""
    code: str
    """The source of the timed code."""
    conduct: Callable[[Bench], ExperimentOutcome] = field(repr=False)

    @property
    def claim(self) -> str:
        """All claims in one sentence."""
        return "; ".join(self.claims) + "."
