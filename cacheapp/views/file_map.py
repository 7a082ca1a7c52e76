"""Drawings of a job: a map with a square for each file, and the rate of the last minutes. Pure.

Both are paths in a view box of their own, for the template to put into an SVG. Equal neighbours of a
row are one line, dashed into squares, so ten thousand files need a few hundred bytes.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cacheapp.downloads.states import FileState

MAX_SQUARES = 10_000
_SIZES = ((400, 40), (2_500, 100), (MAX_SQUARES, 200))
"""Columns for so many squares at the most."""
CELL = 10
_URGENCY = (
    FileState.FAILED,
    FileState.RUNNING,
    FileState.QUEUED,
    FileState.CANCELLED,
    FileState.SUCCEEDED,
)
"""A square of several files has the first of these states that one of them has."""


@dataclass(frozen=True)
class FileMap:
    """The size of the view box, a path for each state, and how many files a square stands for."""

    width: int
    height: int
    paths: Mapping[str, str]
    files_per_square: int


def draw_map(states: Sequence[str]) -> FileMap:
    """Draw the states of files, in the order of their positions."""
    per_square = max(1, -(-len(states) // MAX_SQUARES))
    squares = [
        _most_urgent(states[first : first + per_square])
        for first in range(0, len(states), per_square)
    ]
    columns = next(columns for most, columns in _SIZES if len(squares) <= most)
    paths: dict[str, list[str]] = {}
    for row, first in enumerate(range(0, len(squares), columns)):
        middle = row * CELL + CELL // 2
        column = 0
        for state, equal in itertools.groupby(squares[first : first + columns]):
            length = len(list(equal))
            paths.setdefault(state, []).append(f"M{column * CELL} {middle}h{length * CELL}")
            column += length
    rows = -(-len(squares) // columns)
    drawn = {state: "".join(lines) for state, lines in paths.items()}
    return FileMap(columns * CELL, max(1, rows) * CELL, drawn, per_square)


def _most_urgent(states: Sequence[str]) -> str:
    return next((state.value for state in _URGENCY if state in states), states[0])


SPARK_WIDTH, SPARK_HEIGHT = 600, 60


def draw_rates(samples: Sequence[tuple[float, float]], now_s: float, shown_s: float) -> str:
    """Draw rates (wall time, bytes per second) as an area that ends now; empty without two samples."""
    shown = [(at_s, bps) for at_s, bps in samples if now_s - shown_s <= at_s <= now_s]
    most = max((bps for _, bps in shown), default=0)
    if len(shown) < 2 or not most:  # noqa: PLR2004 (a line needs two)
        return ""
    points = [
        (
            round(SPARK_WIDTH * (1 - (now_s - at_s) / shown_s), 1),
            round((SPARK_HEIGHT - 2) * (1 - bps / most) + 1, 1),
        )
        for at_s, bps in shown
    ]
    line = "L".join(f"{x} {y}" for x, y in points)
    return f"M{points[0][0]} {SPARK_HEIGHT}L{line}L{points[-1][0]} {SPARK_HEIGHT}Z"
