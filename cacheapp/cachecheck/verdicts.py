"""The findings on an alias: a verdict for each property, with its figure and its proof."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cacheapp.consistency.counterexample import Counterexample
from cacheapp.consistency.history import Operation


class PropertyVerdict(enum.StrEnum):
    """What the run showed. Only BROKEN is a proof; HOLDS means that no violation was found."""

    HOLDS = "HOLDS"
    BROKEN = "BROKEN"
    UNKNOWN = "UNKNOWN"
    """Too few calls succeeded, or the budget of the search ran out."""
    NOT_APPLICABLE = "NOT APPLICABLE"
    """The backend does not have this feature."""


@dataclass(frozen=True)
class PropertyFinding:
    """One property of one alias. `figure`: the number behind the verdict; `why`: a sentence."""

    property: str
    verdict: PropertyVerdict
    figure: str = ""
    why: str = ""
    operations: tuple[Operation, ...] = ()
    """The counterexample."""
    origins: tuple[Operation, ...] = ()
    """Earlier operations that wrote the values read in the counterexample."""

    def as_json(self) -> dict[str, Any]:
        """Return what `json` can write."""
        return {
            "property": self.property,
            "verdict": self.verdict.value,
            "figure": self.figure,
            "why": self.why,
            "counterexample": [one.as_json() for one in self.operations],
            "origins": [one.as_json() for one in self.origins],
        }


@dataclass(frozen=True)
class AliasReport:
    """The findings on one alias so far."""

    alias: str
    backend: str
    findings: tuple[PropertyFinding, ...]
    seconds: float
    calls_per_s: int = 0
    """How many calls all clients together made in a second."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the package that has the backend."""


def plain(name: str, wrong: Sequence[str], figure: str, *, unanswered: str = "") -> PropertyFinding:
    """Return BROKEN if something is wrong, else UNKNOWN if something was unanswered, else HOLDS."""
    if wrong:
        return PropertyFinding(name, PropertyVerdict.BROKEN, figure, "; ".join(wrong))
    if unanswered:
        return PropertyFinding(name, PropertyVerdict.UNKNOWN, figure, unanswered)
    return PropertyFinding(name, PropertyVerdict.HOLDS, figure)


def with_proof(finding: PropertyFinding, proof: Counterexample | None) -> PropertyFinding:
    """Return the finding with a counterexample."""
    if proof is None:
        return finding
    why = "; ".join(part for part in (finding.why, proof.why) if part)
    return PropertyFinding(
        finding.property, finding.verdict, finding.figure, why, proof.operations, proof.origins
    )
