"""What Prometheus returned for the dashboard in the last real run, and the picture of it. Pure but for the files."""

import json
import math
from collections.abc import Sequence
from typing import Any

from tests.dashboard.drawing import Lines, draw
from tests.dashboard.expressions import Panel, panels
from tests.system.conftest import ROOT

DASHBOARD = ROOT / "docs" / "grafana" / "cacheapp.json"
OBSERVED = ROOT / "docs" / "grafana" / "observed.json"
PICTURE = ROOT / "docs" / "pictures" / "dashboard.svg"
RATE = "10s"
_DIGITS = 4


class Outdated(Exception):
    """The run had other expressions than the dashboard."""


def shown() -> list[Panel]:
    """Return the panels of the dashboard."""
    return panels(json.loads(DASHBOARD.read_text()), RATE)


def keep(found: Sequence[tuple[Panel, Lines]], seconds: float) -> None:
    """Keep what was found, without what the dashboard says itself."""
    raw = {
        "seconds": seconds,
        "panels": [
            {
                "expressions": [target.expression for target in panel.targets],
                "lines": [[name, [[at, _short(it)] for at, it in line]] for name, line in lines],
            }
            for panel, lines in found
        ],
    }
    OBSERVED.write_text(json.dumps(raw, separators=(",", ":")) + "\n")


def _short(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def picture() -> str:
    """Draw the dashboard as it is now from what is kept; raise `Outdated` if the run was of another one."""
    raw = json.loads(OBSERVED.read_text())
    found = [
        (panel, _lines(panel, kept)) for panel, kept in zip(shown(), raw["panels"], strict=True)
    ]
    return draw(found, raw["seconds"])


def _lines(panel: Panel, kept: dict[str, Any]) -> Lines:
    if kept["expressions"] != [target.expression for target in panel.targets]:
        raise Outdated(f"{panel.title}: run: python -m tests.dashboard")
    return [
        (name, [(at, math.nan if value is None else value) for at, value in points])
        for name, points in kept["lines"]
    ]
