"""Panels as one SVG in the layout of the dashboard, light or dark like the reader's screen. Pure."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import accumulate

from tests.dashboard.expressions import Panel

Points = Sequence[tuple[float, float]]
Lines = Sequence[tuple[str, Points]]
"""The name of each line, and its pairs of seconds since the beginning and a value, which may be NaN."""

COLOURS = ("#3a86c8", "#d1722a", "#2c9a6c", "#b3569f", "#c2a021", "#d64550", "#5aa9b8", "#8a8f98")
_STYLE = (
    "svg{color:#1b1f24;background:#eef0f3;font:11px system-ui,sans-serif}"
    ".panel{fill:#fff;stroke:#d5d9df}.grid{stroke:#8a8f98;stroke-opacity:.25}"
    "text{fill:currentColor}.title{font-size:13px;font-weight:600}.row{font-size:15px;font-weight:600}"
    ".soft{opacity:.7}.line{fill:none;stroke-width:1.5;stroke-linejoin:round}.area{fill-opacity:.25}"
    "@media(prefers-color-scheme:dark){svg{color:#e8eaed;background:#0d0f12}"
    ".panel{fill:#16181c;stroke:#2c3037}}"
)
_COLUMN = 50  # pixels of one of the 24 columns
_UNIT = 30  # pixels of one unit of height
_GAP = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 34, 22  # around the lines of a panel
_LEGEND_LINE = 15
_LEGEND_LINES = 4  # Grafana lets one scroll
_CHAR = 6.3  # an average width
_TICKS = 4
_TIME_STEP_S = 30


def draw(panels: Sequence[tuple[Panel, Lines]], seconds: float) -> str:
    """Return the picture of panels with their lines, over so many seconds."""
    width = 24 * _COLUMN + _GAP
    height = max(panel.y + panel.height for panel, _ in panels) * _UNIT + _GAP
    parts = [part for panel, lines in panels for part in _panel(panel, lines, seconds)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
    )
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _panel(panel: Panel, lines: Lines, seconds: float) -> Iterator[str]:
    x, y = panel.x * _COLUMN + _GAP, panel.y * _UNIT + _GAP
    width, height = panel.width * _COLUMN - _GAP, panel.height * _UNIT - _GAP
    yield f'<g transform="translate({x},{y})">'
    if not panel.targets:
        yield f'<text class="row" y="17">{escape(panel.title)}</text></g>'
        return
    yield f'<rect class="panel" width="{width}" height="{height}" rx="4"/>'
    yield f'<text class="title" x="12" y="21">{escape(panel.title)}</text>'
    entries = _legend([name for name, _ in lines], width)
    rows = max((row for *_, row in entries), default=0) + 1
    box = (width - _LEFT - _RIGHT, height - _TOP - _BOTTOM - rows * _LEGEND_LINE - 4)
    yield from _chart(panel, lines, box, seconds)
    for number, name, at, row in entries:
        below = height - (rows - row) * _LEGEND_LINE + 4
        yield f'<rect x="{at}" y="{below - 6}" width="10" height="3" fill="{_colour(number)}"/>'
        yield f'<text x="{at + 14}" y="{below}">{escape(name)}</text>'
    yield "</g>"


def _legend(names: Sequence[str], width: int) -> list[tuple[int, str, int, int]]:
    """Return number, text, position and row of each entry; the last one says how many are left out."""
    found: list[tuple[int, str, int, int]] = []
    at, row = 12, 0
    for number, name in enumerate(names):
        wide = round(len(name) * _CHAR) + 26
        if at > 12 and at + wide > width - 70 * (row == _LEGEND_LINES - 1):
            at, row = 12, row + 1
        if row == _LEGEND_LINES:
            *_, last = found
            text = f"and {len(names) - number} more"
            end = last[2] + round(len(last[1]) * _CHAR) + 26
            return [*found, (len(COLOURS) - 1, text, end, row - 1)]
        found.append((number, name, at, row))
        at += wide
    return found


def _chart(panel: Panel, lines: Lines, box: tuple[int, int], seconds: float) -> Iterator[str]:
    width, height = box
    stacked = _stacked(lines) if panel.is_stacked else lines
    values = [value for _, points in stacked for _, value in points if math.isfinite(value)]
    most = panel.most or _nice(max(values, default=0) or 1)
    yield f'<g transform="translate({_LEFT},{_TOP})">'
    for tick in range(_TICKS + 1):
        at = round(height - height * tick / _TICKS, 1)
        label = escape(_shown(most * tick / _TICKS, panel.unit))
        yield f'<path class="grid" d="M0 {at}H{width}"/>'
        yield f'<text class="soft" x="-6" y="{at + 4}" text-anchor="end">{label}</text>'
    for at_s in range(0, int(seconds) + 1, _TIME_STEP_S):
        x = f'x="{width * at_s / seconds:.0f}" y="{height + 16}" text-anchor="middle"'
        yield f'<text class="soft" {x}>{at_s // 60}:{at_s % 60:02}</text>'
    order = list(enumerate(stacked))
    for number, (_, points) in reversed(order) if panel.is_stacked else order:
        placed = [(at * width / seconds, height - value / most * height) for at, value in points]
        colour = _colour(number)
        if panel.is_stacked and placed:
            area = f"M{placed[0][0]:.1f} {height}L{_path(placed)[1:]}L{placed[-1][0]:.1f} {height}Z"
            yield f'<path class="area" fill="{colour}" d="{area}"/>'
        yield f'<path class="line" stroke="{colour}" d="{_path(placed)}"/>'
    yield "</g>"


def _stacked(lines: Lines) -> Lines:
    """Return the lines above each other; a line without a value at a time adds 0."""
    times = sorted({at for _, points in lines for at, _ in points})
    rows = [dict(points) for _, points in lines]
    sums = [list(accumulate(_finite(row.get(at, 0.0)) for row in rows)) for at in times]
    return [
        (name, [(at, total[number]) for at, total in zip(times, sums, strict=True)])
        for number, (name, _) in enumerate(lines)
    ]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _path(placed: Points) -> str:
    """Return a path that is interrupted where there is no value."""
    parts, pen = [], "M"
    for x, y in placed:
        if math.isfinite(y):
            parts.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _nice(value: float) -> float:
    """Return the next number whose quarters are short to write."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(
        power * step for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 6, 8, 10) if power * step >= value
    )


def _shown(value: float, unit: str) -> str:
    """Return a value as Grafana writes it in this unit."""
    if unit == "percentunit":
        return f"{100 * value:g} %"
    if unit == "s":
        return next(
            (
                f"{round(value * times, 2):g} {name}"
                for times, name in ((1, "s"), (1e3, "ms"), (1e6, "µs"))
                if value * times >= 1
            ),
            "0",
        )
    scaled = next(
        (f"{round(value / by, 2):g} {name}".strip() for by, name in _SCALES if value >= by),
        f"{round(value, 2):g}",
    )
    return scaled + {"ops": "/s", "Bps": "B/s" if scaled[-1] in "kMG" else " B/s"}.get(unit, "")


_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
