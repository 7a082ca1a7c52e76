"""Draw a counterexample as SVG: a lane for each client, and a time axis below.

It is 360 px wide, so that it can be read on a phone. Moments are in order and evenly spaced: the axis
says when they were, because a call of a second would hide those of a microsecond. A call's label is
above its bar; calls whose labels would overlap have rows of their own.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from cacheapp.consistency.history import Operation
from cacheapp.consistency.timeline import impossible_answer, lane_name

_WIDTH, _LEFT, _RIGHT = 360, 14, 346
_CHARACTER = 7.3  # px: as wide as a character of the labels
_ROW, _HEAD, _LINE, _AXIS = 38, 24, 18, 44
_TITLE_CHARS, _NOTE_CHARS = 38, 46
_DIGIT, _APART = 6.6, 6  # px: as wide as a character of the times, and between two of them

_STYLE = """
  text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #1b1f24 }
  .title { font: 600 15px system-ui, sans-serif }
  .note, .lane, .time { font: 13px system-ui, sans-serif; fill: #57606a }
  .time { font-size: 11px } .lane { font-weight: 600 }
  line { stroke: #d0d7de } .bar { fill: #ddf4ff; stroke: #0969da }
  .write { fill: #fff8c5; stroke: #9a6700 } .open { stroke-dasharray: 5 4 }
  .impossible { fill: #ffebe9; stroke: #cf222e; stroke-width: 2 } .wrong { fill: #cf222e; font-weight: 700 }
  .page { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note, .lane, .time { fill: #8d96a0 } .page { fill: #0d1117 }
    line { stroke: #30363d } .bar { fill: #0c2d6b } .write { fill: #4b2900 }
    .impossible { fill: #67060c; stroke: #ff7b72 } .wrong { fill: #ff7b72 }
  }
"""


@dataclass(frozen=True)
class _Call:
    """A call's place: px from the left, and the row of its lane."""

    operation: Operation
    left: float
    right: float
    label_left: float
    row: int
    label: str
    impossible: bool


def svg(operations: Sequence[Operation], title: str, note: str = "") -> str:
    """Return an SVG document, with the title above and the note below."""
    columns = _columns(operations)
    lanes = _lanes(operations, columns)
    top = 10.0
    body = []
    for line in textwrap.wrap(title, _TITLE_CHARS):
        top += _LINE
        body.append(f'<text class="title" x="{_LEFT}" y="{top:g}">{escape(line)}</text>')
    for process, calls in lanes.items():
        body.append(_lane(process, calls, top))
        top += _HEAD + _ROW * (1 + max(call.row for call in calls))
    if operations:
        body.append(_axis(columns, operations, top))
        top += _AXIS
    for line in textwrap.wrap(note, _NOTE_CHARS):
        top += _LINE
        body.append(f'<text class="note" x="{_LEFT}" y="{top:g}">{escape(line)}</text>')
    height = f"{top + 14:g}"
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
                f'viewBox="0 0 {_WIDTH} {height}" role="img">'
            ),
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
            *body,
            "</svg>\n",
        ]
    )


def _columns(operations: Sequence[Operation]) -> dict[float, float]:
    """Return px from the left for each moment; the end of an unanswered call is the last one."""
    moments = sorted({one.call_ns for one in operations} | {one.end for one in operations})
    step = (_RIGHT - _LEFT) / max(len(moments) - 1, 1)
    return {moment: _LEFT + step * number for number, moment in enumerate(moments)}


def _lanes(operations: Sequence[Operation], columns: dict[float, float]) -> dict[str, list[_Call]]:
    """Return the calls of each client, in rows in which neither bars nor labels overlap."""
    wrong = impossible_answer(operations)
    lanes: dict[str, list[_Call]] = {}
    ends: dict[tuple[str, int], float] = {}
    for one in sorted(operations, key=lambda one: one.call_ns):
        label = f"✗ {one.label}" if one is wrong else one.label
        left, right = columns[one.call_ns], max(columns[one.end], columns[one.call_ns] + 4)
        width = _CHARACTER * len(label)
        start = max(float(_LEFT), min(left, _RIGHT - width))
        row = 0
        while ends.get((one.process, row), -1.0) > min(start, left):
            row += 1
        ends[one.process, row] = max(right, start + width) + _CHARACTER
        call = _Call(one, left, right, start, row, label, one is wrong)
        lanes.setdefault(one.process, []).append(call)
    return dict(sorted(lanes.items()))


def _lane(process: str, calls: Sequence[_Call], top: float) -> str:
    parts = [
        f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{top + 8:g}" y2="{top + 8:g}"/>',
        f'<text class="lane" x="{_LEFT}" y="{top + _HEAD:g}">{escape(lane_name(process))}</text>',
    ]
    for call in calls:
        kind = "bar write" if call.operation.may_write else "bar"
        kind += " open" if call.operation.end == math.inf else ""
        kind += " impossible" if call.impossible else ""
        above = top + _HEAD + _ROW * call.row
        wrong = ' class="wrong"' if call.impossible else ""
        parts.append(
            f'<text{wrong} x="{call.label_left:.1f}" y="{above + 16:g}">{escape(call.label)}</text>'
            f'<rect class="{kind}" x="{call.left:.1f}" y="{above + 21:g}" '
            f'width="{call.right - call.left:.1f}" height="12" rx="3"/>'
        )
    return "\n".join(parts)


def _axis(columns: dict[float, float], operations: Sequence[Operation], top: float) -> str:
    """Draw a tick for each moment, and the times of those that are far enough apart."""
    first = min(one.call_ns for one in operations)
    y = top + 12
    parts = [f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:g}" y2="{y:g}"/>']
    free = float(_LEFT)
    for moment, x in columns.items():
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4:g}" y2="{y + 4:g}"/>')
        if moment == math.inf:
            continue
        text = f"{(moment - first) / 1e6:.3f} ms"
        left = min(x, _RIGHT - _DIGIT * len(text))
        if left < free:
            continue
        free = left + _DIGIT * len(text) + _APART
        parts.append(f'<text class="time" x="{left:.1f}" y="{y + 18:g}">{text}</text>')
    return "\n".join(parts)
