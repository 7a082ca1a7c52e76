"""What an experiment found: frozen data that goes to JSON and comes back as it was."""

import dataclasses
import enum
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

MANY = 10
R = TypeVar("R", bound="Result")


class ClaimVerdict(enum.StrEnum):
    """Whether a claim held, here and in this run; nothing is said of other machines."""

    HOLDS = "HOLDS"
    DOES_NOT_HOLD = "DOES NOT HOLD"
    UNKNOWN = "UNKNOWN"
    """It could not be measured, or the measurement says neither."""


class FigureKind(enum.StrEnum):
    """How a panel is drawn."""

    BARS = "bars"
    LINES = "lines"


@dataclass(frozen=True)
class Measure:
    """One thing that was measured, a few times."""

    label: str
    samples: tuple[float, ...]
    group: str = ""
    """Of bars: what they stand together under. Of lines: which line the point is on."""
    at: float | None = None
    """Of lines: where on the horizontal axis."""

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """From the lowest to the highest of a few samples; of 10 and more, the middle 80 %."""
        if len(self.samples) < MANY:
            return min(self.samples), max(self.samples)
        tenths = statistics.quantiles(self.samples, n=10, method="inclusive")
        return tenths[0], tenths[-1]


@dataclass(frozen=True)
class Panel:
    """Measures of one unit that are drawn and printed together; `log` axes only for lines."""

    title: str
    unit: str
    measures: tuple[Measure, ...]
    kind: FigureKind = FigureKind.BARS
    x_title: str = ""
    log_y: bool = False
    expected: float | None = None
    """Where a line is drawn across: what a right program gives."""


@dataclass(frozen=True)
class ClaimFinding:
    """One claim, whether it held here, and the sentence with the figures that say so."""

    claim: str
    verdict: ClaimVerdict
    why: str


@dataclass(frozen=True)
class ExperimentOutcome:
    """What an experiment hands back; the runner adds the rest of a `Result`."""

    findings: tuple[ClaimFinding, ...]
    panels: tuple[Panel, ...] = ()
    notes: tuple[str, ...] = ()
    """What else the reader must know: what was scaled down, what could not be measured."""


@dataclass(frozen=True)
class About:
    """Where and when it ran; without the host's name."""

    date: str
    machine: str
    python: str
    kernel: str
    load: float
    """Processes that wanted a core in the minute before it began (`os.getloadavg`)."""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One run of one experiment."""

    name: str
    title: str
    claim: str
    code: str
    scale: str
    findings: tuple[ClaimFinding, ...]
    panels: tuple[Panel, ...]
    notes: tuple[str, ...]
    seconds: float
    about: About

    @property
    def verdicts(self) -> set[ClaimVerdict]:
        """What is said of the parts of the claim."""
        return {finding.verdict for finding in self.findings}

    @property
    def verdict(self) -> ClaimVerdict:
        """`DOES NOT HOLD` if a part of the claim did not hold; else `UNKNOWN` if one is unknown."""
        for verdict in (ClaimVerdict.DOES_NOT_HOLD, ClaimVerdict.UNKNOWN):
            if verdict in self.verdicts:
                return verdict
        return ClaimVerdict.HOLDS if self.verdicts else ClaimVerdict.UNKNOWN

    def to_json(self) -> str:
        """Return everything; medians and the verdict are in it too, for other programs."""
        return json.dumps(_with_derived(dataclasses.asdict(self), self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` wrote; raise `ValueError` for anything else."""
        try:
            return _result(cls, json.loads(text))
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"not the JSON of a result: {type(exc).__name__}: {exc}") from exc


def _with_derived(found: dict[str, Any], result: Result) -> dict[str, Any]:
    found["verdict"] = result.verdict
    for panel, its in zip(found["panels"], result.panels, strict=True):
        for measure, real in zip(panel["measures"], its.measures, strict=True):
            measure["median"] = real.median
    return found


def _result(cls: type[R], raw: dict[str, Any]) -> R:
    return cls(
        **_own(raw, "name", "title", "claim", "code", "scale", "seconds"),
        findings=tuple(
            ClaimFinding(one["claim"], ClaimVerdict(one["verdict"]), one["why"])
            for one in raw["findings"]
        ),
        panels=tuple(_panel(one) for one in raw["panels"]),
        notes=tuple(raw["notes"]),
        about=About(**raw["about"]),
    )


def _panel(raw: dict[str, Any]) -> Panel:
    return Panel(
        **_own(raw, "title", "unit", "x_title", "log_y", "expected"),
        kind=FigureKind(raw["kind"]),
        measures=tuple(
            Measure(**_own(one, "label", "group", "at"), samples=tuple(one["samples"]))
            for one in raw["measures"]
        ),
    )


def _own(raw: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: raw[name] for name in names}
