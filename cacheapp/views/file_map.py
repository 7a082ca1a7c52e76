"""A map of a job's files with a square for each, as the paths of an SVG. Pure.

Equal neighbours of a row are one line, which the stylesheet dashes into squares, so ten thousand files
usually need a few hundred bytes.
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
