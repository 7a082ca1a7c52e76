"""Draw a result as SVG: bars and lines that fit any width. Pure.

All horizontal places are shares of the width, so a page shows a chart at the full width of its card
and text is never scaled. A chart inside a page has no style of its own: the page's style sheet colours
its classes. `alone` gives it colours, light or dark like the reader's screen, for a file or an image.

Colours say what a bar means (`Look`), and a sign beside its figure says it again.
"""

import itertools
import math
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from cacheapp.lab.results import FigureKind, Look, Measure, Panel, Result

WIDTH = 400
"""Of a drawing alone: it fits on a phone, and two of them beside each other into a README."""
_BAR, _ROW, _HEADING = 10, 36, 26
_PLOT, _LEGEND, _AXIS = 150, 24, 34  # the heights of a drawing with lines
_LEFT, _RIGHT = 13.0, 97.0  # %: between these are the points of lines, beside the labels
_MARK, _COLUMN = 6, 110  # of a legend
_TITLE_CHARACTERS = 52
_SHORT_UNIT = 3  # s, ms, MiB
_WIDE = 100  # a range of this factor needs only powers of ten
_MANY = 10_000  # from here on, an axis shows 10k
_SIGNS = {Look.RIGHT: "✓", Look.BROKEN: "✕", Look.UNSAFE: "!"}
_STYLE = (
    "svg{color:#1b2026;background:#fff;font:12px system-ui,sans-serif}"
    ".track{fill:#f0f2f5}.plain{fill:#0b5cad}.other{fill:#8a94a0}.right{fill:#14683a}"
    ".broken{fill:#a8201a}.unsafe{fill:#b87700}.first{fill:#0b5cad;stroke:#0b5cad}"
    ".second{fill:#b3569f;stroke:#b3569f}"
    "@media(prefers-color-scheme:dark){svg{color:#e5e9ee;background:#171c22}.track{fill:#262d35}"
    ".plain{fill:#7fb8fa}.right{fill:#7fdca6}.broken{fill:#ff9f97}.unsafe{fill:#f0c674}"
    ".first{fill:#7fb8fa;stroke:#7fb8fa}.second{fill:#e09bd0;stroke:#e09bd0}}"
    "text{fill:currentColor;stroke:none}.title{font-weight:600;font-size:13px}.value{font-weight:600}"
    ".soft{opacity:.75}.spread,.expected,.grid{stroke:currentColor}.expected{stroke-width:2}"
    ".grid{opacity:.2}.line{fill:none;stroke-width:2}"
)
_SERIES = ("first", "second")


def chart(panel: Panel) -> str:
    """Draw a panel for use inside a page, which shows the title; empty if it has only zeros."""
    if panel.has_only_zeros:
        return ""
    root, height = _drawn(panel)
    root.set("height", f"{height:g}")
    root.set("role", "img")
    root.set("class", "chart")
    figures = (f"{name(one)} {median_text(one, panel.unit)}" for one in panel.measures)
    root.set("aria-label", f"{panel.title}: {'; '.join(figures)}")
    return ET.tostring(root, encoding="unicode")


def alone(result: Result) -> str:
    """Draw all panels of a result below each other, with their titles, as a file of its own."""
    inner = ET.Element("svg", x="12", y="0", width=str(WIDTH - 24))
    y = 8.0
    for panel in result.panels:
        for line in textwrap.wrap(panel.title, _TITLE_CHARACTERS):
            y += 17
            _text(inner, line, y=y, kind="title")
        for line in textwrap.wrap(subtitle(panel), _TITLE_CHARACTERS):
            y += 16
            _text(inner, line, y=y, kind="soft")
        y += 8
        if not panel.has_only_zeros:
            drawn, height = _drawn(panel)
            drawn.set("y", f"{y:g}")
            drawn.set("height", f"{height:g}")
            inner.append(drawn)
            y += height
        y += 14
    inner.set("height", f"{y:g}")
    size = {"width": str(WIDTH), "height": f"{y:g}", "viewBox": f"0 0 {WIDTH} {y:g}"}
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size})
    ET.SubElement(root, "style").text = _STYLE
    root.append(inner)
    return ET.tostring(root, encoding="unicode") + "\n"


def subtitle(panel: Panel) -> str:
    """Return what a reader needs beside the title: the unit, and the result of a correct program."""
    if panel.has_only_zeros:
        return f"0 for each: {', '.join(map(name, panel.measures))}"
    if panel.expected is None:
        return "" if _is_beside_figures(panel) else panel.unit
    return f"{number(panel.expected)} is right"


def _drawn(panel: Panel) -> tuple[ET.Element, float]:
    root = ET.Element("svg", width="100%")
    draw = _bars if panel.kind is FigureKind.BARS else _lines
    return root, draw(root, panel)


def _bars(root: ET.Element, panel: Panel) -> float:
    """Draw a bar from zero for each measure: its name and its median above; return the height."""
    most = max([one.spread[1] for one in panel.measures] + [panel.expected or 0.0])
    y = 0.0
    for group, measures in itertools.groupby(panel.measures, lambda one: one.group):
        if group:
            y += _HEADING
            _text(root, group, y=y - 8, kind="soft")
        for one in measures:
            _text(root, one.label, y=y + 13)
            sign = f" {_SIGNS[one.look]}" if one.look in _SIGNS else ""
            _text(root, median_text(one, panel.unit) + sign, x=100, y=y + 13, kind="value end")
            _bar(root, one, panel.expected, most, y + 18)
            y += _ROW
    return y


def _bar(root: ET.Element, one: Measure, right: float | None, most: float, y: float) -> None:
    size = {"y": f"{y:g}", "height": str(_BAR), "rx": "2"}
    ET.SubElement(root, "rect", {"class": "track", "width": "100%", **size})
    width = f"{_share(one.median, most):g}%"
    ET.SubElement(root, "rect", {"class": one.look.value, "width": width, **size})
    low, high = (_share(value, most) for value in one.spread)
    if high > low:
        _line(root, (low, y + _BAR / 2), (high, y + _BAR / 2), "spread")
    if right:
        _line(root, (_share(right, most), y - 3), (_share(right, most), y + _BAR + 3), "expected")


def _share(value: float, most: float) -> float:
    return round(99.5 * value / most, 2)  # a line at the end is still inside


def _lines(root: ET.Element, panel: Panel) -> float:
    """Draw a line for each group on logarithmic axes, with the spread of each point."""
    ticks = _round_numbers([value for one in panel.measures for value in one.spread if value > 0])
    places = sorted({one.at for one in panel.measures if one.at})
    bottom = _LEGEND + _PLOT
    across = _Scale(places[0], places[-1], _LEFT, _RIGHT)
    up = _Scale(ticks[0], ticks[-1], bottom, _LEGEND + 12)
    for tick in ticks:
        _line(root, (0, up.place(tick)), (100, up.place(tick)), "grid")
        _text(root, _short(tick), y=up.place(tick) - 3, kind="soft")
    for at in places:
        is_last = at == places[-1]
        x, kind = (100.0, "soft end") if is_last else (across.place(at), "soft middle")
        _text(root, _short(at), x=x, y=bottom + 15, kind=kind)
    _text(root, panel.x_title, x=50, y=bottom + 30, kind="soft middle")
    groups = itertools.groupby(panel.measures, lambda one: one.group)
    for position, (group, measures) in enumerate(groups):
        kind = _SERIES[position % len(_SERIES)]
        _series(root, list(measures), across, up, kind)
        _mark(root, str(_MARK + _COLUMN * position), 9, kind)
        ET.SubElement(root, "text", x=str(2.5 * _MARK + _COLUMN * position), y="13").text = group
    return bottom + _AXIS


@dataclass(frozen=True)
class _Scale:
    """A logarithmic axis: values from `low` to `high` at places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the place of a value; of one beyond an end, that end."""
        inside = min(max(value, self.low), self.high)
        share = math.log(inside / self.low) / (math.log(self.high / self.low) or 1.0)
        return round(self.start + (self.end - self.start) * share, 2)


def _series(
    root: ET.Element, measures: Sequence[Measure], across: _Scale, up: _Scale, kind: str
) -> None:
    """Draw the points of a group from left to right, and lines between them."""
    points = [
        (across.place(one.at or 1.0), up.place(one.median), map(up.place, one.spread))
        for one in measures
    ]
    for (x, y, _), (next_x, next_y, _) in itertools.pairwise(points):
        _line(root, (x, y), (next_x, next_y), f"line {kind}")
    for x, y, (low, high) in points:
        _line(root, (x, low), (x, high), "spread")
        _mark(root, f"{x:g}%", y, kind)


def _mark(root: ET.Element, x: str, y: float, kind: str) -> None:
    """Draw a dot, or a square for the second line: colour is not the only difference."""
    if kind == _SERIES[0]:
        ET.SubElement(root, "circle", {"class": kind, "cx": x, "cy": f"{y:g}", "r": "4"})
        return
    size = {"width": "8", "height": "8", "transform": "translate(-4 -4)"}
    ET.SubElement(root, "rect", {"class": kind, "x": x, "y": f"{y:g}", **size})


def _round_numbers(values: Sequence[float]) -> list[float]:
    """Return round numbers around all values: a few labels for a logarithmic axis."""
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high < _WIDE * low else (1,)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    found = [step * 10.0**power for power in powers for step in steps]
    first = max(index for index, value in enumerate(found) if value <= low)
    last = min(index for index, value in enumerate(found) if value >= high)
    return found[first : max(last, first + 1) + 1]


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= _MANY else f"{value:,g}"


def _line(
    root: ET.Element, start: tuple[float, float], end: tuple[float, float], kind: str
) -> None:
    (x1, y1), (x2, y2) = start, end
    ends = {"x1": f"{x1:g}%", "y1": f"{y1:g}", "x2": f"{x2:g}%", "y2": f"{y2:g}"}
    ET.SubElement(root, "line", {"class": kind, **ends})


def _text(root: ET.Element, text: str, *, y: float, x: float = 0, kind: str = "") -> None:
    kinds = kind.split()
    attributes = {"x": f"{x:g}%", "y": f"{y:g}"}
    for anchor in {"end", "middle"}.intersection(kinds):
        attributes["text-anchor"] = anchor
        kinds.remove(anchor)
    if kinds:
        attributes["class"] = " ".join(kinds)
    ET.SubElement(root, "text", attributes).text = text


def name(measure: Measure) -> str:
    """Return the name of a measure where no heading has its group."""
    if measure.at is not None:
        return f"{measure.group}, {number(measure.at)}"
    return f"{measure.label}, {measure.group}" if measure.group else measure.label


def _is_beside_figures(panel: Panel) -> bool:
    """Return whether each figure has its unit, as in `5 ms`."""
    return panel.kind is FigureKind.BARS and len(panel.unit) <= _SHORT_UNIT


def median_text(measure: Measure, unit: str) -> str:
    """Return the median with its unit, in three significant digits."""
    is_short = 0 < len(unit) <= _SHORT_UNIT
    return f"{number(measure.median)} {unit}" if is_short else number(measure.median)


def number(value: float) -> str:
    """Return a number in three significant digits; whole numbers in full."""
    if value == int(value) and abs(value) < 1e6:  # noqa: PLR2004
        return f"{int(value):,}"
    if abs(value) >= 100:  # noqa: PLR2004 (no digits behind the point)
        return f"{value:,.0f}"
    return f"{value:#.3g}"
