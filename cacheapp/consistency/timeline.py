"""Draw a counterexample as text: a lane for each process, time from left to right.

Time is in order, not to scale: operations that overlap in the drawing overlapped. An unanswered
operation has no right end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cacheapp.consistency.history import Operation


@dataclass(frozen=True)
class Bar:
    """The columns of an operation's call and, if it has one, its return."""

    operation: Operation
    left: int
    right: int
    open: bool


def place(operations: Sequence[Operation]) -> dict[str, list[Bar]]:
    """Return the bars of each process, in columns wide enough for the labels."""
    ends = [one.return_ns for one in operations if one.return_ns is not None]
    last = max([*ends, *(one.call_ns for one in operations)]) + 1
    spans = [(one.call_ns, last if one.end == math.inf else int(one.end)) for one in operations]
    moments = sorted({(start, 0) for start, _ in spans} | {(end, 1) for _, end in spans})
    column: dict[tuple[int, int], int] = {}
    at = -1
    for moment in moments:
        at += 1
        for one, (start, end) in zip(operations, spans, strict=True):
            if (end, 1) == moment:
                at = max(at, column[start, 0] + len(one.label) + 3)
        column[moment] = at
    lanes: dict[str, list[Bar]] = {}
    for one, (start, end) in sorted(zip(operations, spans, strict=True), key=lambda pair: pair[1]):
        bar = Bar(one, column[start, 0], column[end, 1], one.end == math.inf)
        lanes.setdefault(one.process, []).append(bar)
    return dict(sorted(lanes.items()))


def _bar_text(bar: Bar) -> str:
    width = bar.right - bar.left - 1
    filler = "╌" if bar.open else "─"
    return "├" + f" {bar.operation.label} ".center(width, filler) + ("╌" if bar.open else "┤")


def draw(operations: Sequence[Operation], names: Mapping[str, str] | None = None) -> str:
    """Return one line for each process. `names`: other names of the processes."""
    if not operations:
        return ""
    lanes = place(operations)
    shown = {process: (names or {}).get(process, process) for process in lanes}
    margin = max(map(len, shown.values())) + 2
    lines = []
    for process, bars in lanes.items():
        line = shown[process].ljust(margin)
        for bar in bars:
            line = line.ljust(margin + bar.left) + _bar_text(bar)
        lines.append(line)
    return "\n".join(lines)


def moments(operations: Sequence[Operation]) -> list[str]:
    """Return a line for each operation: its interval since the first call, and its result."""
    first = min((one.call_ns for one in operations), default=0)
    return [
        f"{(one.call_ns - first) / 1e6:9.3f} to {_end_ms(one, first)} ms  {one.process}  {one.label}"
        for one in sorted(operations, key=lambda one: one.call_ns)
    ]


def _end_ms(operation: Operation, first: int) -> str:
    if operation.end == math.inf:
        return "        ?"
    return f"{(operation.end - first) / 1e6:9.3f}"
