"""Draw a counterexample as text: a lane for each process, time from left to right.

Time is in order, not to scale: operations that overlap in the drawing overlapped. An unanswered
operation has no right end. The answer that the others make impossible has a ✗.
"""

import math
import re
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
    impossible: bool = False

    @property
    def label(self) -> str:
        """The call and its answer, with a mark if that is impossible."""
        return f"{self.operation.label} ✗" if self.impossible else self.operation.label


_AXIS = "time in ms"
_CLIENT = re.compile(r"([pw])(\d+)(?:\.(\d+))?(-child)?")


def lane_name(process: str) -> str:
    """Return the name of a client for people: `p3.2` is process 3, thread 2."""
    if not (found := _CLIENT.fullmatch(process)):
        return process
    kind, number, thread, child = found.groups()
    parts = [f"{'process' if kind == 'p' else 'worker'} {number}"]
    parts += [f"thread {thread}"] if thread else []
    parts += ["forked child"] if child else []
    return ", ".join(parts)


def impossible_answer(operations: Sequence[Operation]) -> Operation | None:
    """Return the call whose answer the earlier ones make impossible: the last one that says anything.

    Each call of a counterexample is needed for it; people look for the culprit at the end.
    """
    if len(operations) < 2:  # noqa: PLR2004 (a single call needs no mark)
        return None
    saying = [one for one in operations if one.result is not None and one.end != math.inf]
    return max(saying, key=lambda one: (one.end, one.call_ns), default=None)


def place(operations: Sequence[Operation]) -> dict[str, list[Bar]]:
    """Return the bars of each process, in columns wide enough for the labels."""
    wrong = impossible_answer(operations)
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
                at = max(at, column[start, 0] + len(one.label) + 3 + 2 * (one is wrong))
        column[moment] = at
    lanes: dict[str, list[Bar]] = {}
    for one, (start, end) in sorted(zip(operations, spans, strict=True), key=lambda pair: pair[1]):
        bar = Bar(one, column[start, 0], column[end, 1], one.end == math.inf, one is wrong)
        lanes.setdefault(one.process, []).append(bar)
    return dict(sorted(lanes.items()))


def _bar_text(bar: Bar) -> str:
    width = bar.right - bar.left - 1
    filler = "╌" if bar.open else "─"
    return "├" + f" {bar.label} ".center(width, filler) + ("╌" if bar.open else "┤")


def draw(
    operations: Sequence[Operation],
    names: Mapping[str, str] | None = None,
    *,
    axis: bool = False,
) -> str:
    """Return one line for each process. `names`: other names of the processes.

    `axis`: a last line with the times of calls and returns, in ms since the first call, where there is room.
    """
    if not operations:
        return ""
    lanes = place(operations)
    shown = {process: (names or {}).get(process, lane_name(process)) for process in lanes}
    margin = max(map(len, [*shown.values(), *([_AXIS] if axis else [])])) + 2
    lines = []
    for process, bars in lanes.items():
        line = shown[process].ljust(margin)
        for bar in bars:
            line = line.ljust(margin + bar.left) + _bar_text(bar)
        lines.append(line)
    if axis:
        lines.append(_axis_text([bar for bars in lanes.values() for bar in bars], margin))
    return "\n".join(lines)


def _axis_text(bars: Sequence[Bar], margin: int) -> str:
    first = min(bar.operation.call_ns for bar in bars)
    columns = {bar.left: float(bar.operation.call_ns) for bar in bars}
    columns |= {bar.right: bar.operation.end for bar in bars if not bar.open}
    line = _AXIS.ljust(margin - 1)
    for column, moment in sorted(columns.items()):
        if len(line) < margin + column:
            line = f"{line.ljust(margin + column)}{(moment - first) / 1e6:.3f}"
    return line


def moments(operations: Sequence[Operation]) -> list[str]:
    """Return a line for each operation: its interval since the first call, and its result."""
    first = min((one.call_ns for one in operations), default=0)
    wide = max((len(lane_name(one.process)) for one in operations), default=0)
    return [
        f"{(one.call_ns - first) / 1e6:9.3f} to {_end_ms(one, first)} ms  "
        f"{lane_name(one.process):{wide}}  {one.label}"
        for one in sorted(operations, key=lambda one: one.call_ns)
    ]


def _end_ms(operation: Operation, first: int) -> str:
    if operation.end == math.inf:
        return "        ?"
    return f"{(operation.end - first) / 1e6:9.3f}"
