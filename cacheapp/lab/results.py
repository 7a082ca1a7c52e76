"""The result of an experiment: frozen data that converts to JSON and back."""

import dataclasses
import enum
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

MANY = 10
R = TypeVar("R", bound="Result")


class ClaimVerdict(enum.StrEnum):
    """Whether a claim held on this machine in this run."""

    HOLDS = "HOLDS"
    DOES_NOT_HOLD = "DOES NOT HOLD"
    UNKNOWN = "UNKNOWN"
    """It was not measured, or the measurement does not decide it."""


class Look(enum.StrEnum):
    """How a bar is coloured: what it says about the program that was measured."""

    PLAIN = "plain"
    """A time, a rate: neither right nor wrong."""
    OTHER = "other"
    """The same, for what is only there to compare with."""
    RIGHT = "right"
    BROKEN = "broken"
    UNSAFE = "unsafe"
    """Wrong because of how the cache was used, whatever cache it is."""


class FigureKind(enum.StrEnum):
    """How a panel is drawn."""

    BARS = "bars"
    LINES = "lines"


@dataclass(frozen=True)
class Measure:
    """The samples of one measurement."""

    label: str
    samples: tuple[float, ...]
    group: str = ""
    """Of bars: their common heading. Of lines: the line of the point."""
    at: float | None = None
    """Of lines: the position on the horizontal axis."""
    look: Look = Look.PLAIN
    """Of bars: the colour."""

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and highest of fewer than 10 samples; of more, the middle 80 %."""
        if len(self.samples) < MANY:
            return min(self.samples), max(self.samples)
        tenths = statistics.quantiles(self.samples, n=10, method="inclusive")
        return tenths[0], tenths[-1]


@dataclass(frozen=True)
class Panel:
    """Measures with one unit that are drawn and printed together; `log_y` only for lines."""

    title: str
    unit: str
    measures: tuple[Measure, ...]
    kind: FigureKind = FigureKind.BARS
    x_title: str = ""
    log_y: bool = False
    expected: float | None = None
    """The result of a correct program, drawn as a line."""

    @property
    def has_only_zeros(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(any(one.samples) for one in self.measures)


@dataclass(frozen=True)
class ClaimFinding:
    """One claim, its verdict, and a sentence with the figures."""

    claim: str
    verdict: ClaimVerdict
    why: str
    figure: str = ""
    """The figure that decides, in a few words; of an unknown verdict, the reason."""
    load_causes: tuple[ClaimVerdict, ...] = ()
    """The verdicts that other programs on the machine can cause; none for counts."""


@dataclass(frozen=True)
class ExperimentOutcome:
    """What an experiment returns; the runner adds the rest of a `Result`."""

    findings: tuple[ClaimFinding, ...]
    panels: tuple[Panel, ...] = ()
    notes: tuple[str, ...] = ()
    """Remarks for the reader: what was scaled down or not measured."""


@dataclass(frozen=True)
class About:
    """Where and when it ran; without the name of the machine."""

    date: str
    machine: str
    python: str
    kernel: str
    load: float
    """Runnable processes in the minute before it began (`os.getloadavg`)."""
    versions: Mapping[str, str] = field(default_factory=dict)
    cores: int = 0
    """How many cores it could use."""
    others: float | None = None
    """Cores that other programs used just before or just after the run, the larger figure."""


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
        """The verdicts on the parts of the claim."""
        return {finding.verdict for finding in self.findings}

    @property
    def verdict(self) -> ClaimVerdict:
        """`DOES NOT HOLD` if a part of the claim did not hold; else `UNKNOWN` if one is unknown."""
        for verdict in (ClaimVerdict.DOES_NOT_HOLD, ClaimVerdict.UNKNOWN):
            if verdict in self.verdicts:
                return verdict
        return ClaimVerdict.HOLDS if self.verdicts else ClaimVerdict.UNKNOWN

    def to_json(self) -> str:
        """Return all data, with the medians and the verdict for other programs."""
        return json.dumps(_with_derived(dataclasses.asdict(self), self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the result that `to_json` wrote; raise `ValueError` for anything else."""
        try:
            return _result(cls, json.loads(text))
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"not the JSON of a result: {type(exc).__name__}: {exc}") from exc


def look_of(samples: Sequence[float], right: float) -> Look:
    """Return whether every sample is the right result."""
    return Look.RIGHT if all(sample == right for sample in samples) else Look.BROKEN


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
            ClaimFinding(
                **_own(one, "claim", "why"),
                verdict=ClaimVerdict(one["verdict"]),
                figure=one.get("figure", ""),
                load_causes=tuple(map(ClaimVerdict, one.get("load_causes", ()))),
            )
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
            Measure(
                **_own(one, "label", "group", "at"),
                samples=tuple(one["samples"]),
                look=Look(one.get("look", Look.PLAIN)),
            )
            for one in raw["measures"]
        ),
    )


def _own(raw: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: raw[name] for name in names}
