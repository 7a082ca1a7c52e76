"""The panels of the dashboard and their expressions, with values for Grafana's variables. Pure."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

Labels = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Target:
    """One expression of a panel, and the template of the names of its lines."""

    expression: str
    legend: str

    def name(self, labels: Labels) -> str:
        """Return what the legend shows for a line with these labels."""
        return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), self.legend)


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel with lines, or a row's title, which has no targets. Positions are Grafana's: 24 columns."""

    title: str
    unit: str
    is_stacked: bool
    most: float | None
    x: int
    y: int
    width: int
    height: int
    targets: Sequence[Target]


def panels(dashboard: Mapping[str, Any], rate_interval: str) -> list[Panel]:
    """Return the panels, with all machines, aliases and operations chosen."""
    return [_panel(raw, rate_interval) for raw in dashboard["panels"]]


def _panel(raw: Mapping[str, Any], rate_interval: str) -> Panel:
    defaults = raw.get("fieldConfig", {}).get("defaults", {})
    place = raw["gridPos"]
    return Panel(
        title=raw["title"],
        unit=defaults.get("unit", ""),
        is_stacked=defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal",
        most=defaults.get("max"),
        x=place["x"],
        y=place["y"],
        width=place["w"],
        height=place["h"],
        targets=[
            Target(_filled(target["expr"], rate_interval), target["legendFormat"])
            for target in raw.get("targets", [])
        ],
    )


def _filled(expression: str, rate_interval: str) -> str:
    expression = expression.replace("$__rate_interval", rate_interval)
    return re.sub(r"\$(alias|instance|operation)", ".*", expression)
