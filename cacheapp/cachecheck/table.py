"""A table of text for a terminal: `┏━┳━┓` above the head, `└─┴─┘` below the rows."""

import textwrap
from collections.abc import Callable, Sequence

from django.utils.termcolors import colorize

MAX_CHARS = 40
"""Longer lines of a cell are wrapped between words."""

Cell = Sequence[tuple[str, str | None]]
"""The lines of a cell, each with its colour."""


def drawn(head: Sequence[str], rows: Sequence[Sequence[Cell]], *, coloured: bool) -> list[str]:
    """Return the lines of the table."""
    top: list[Cell] = [[(name, None)] for name in head]
    everything = [[_wrapped(cell) for cell in row] for row in [top, *rows]]
    widths = [
        max(len(line) for row in everything for line, _colour in row[column])
        for column in range(len(head))
    ]
    paint = _paint if coloured else _plain
    lines = [_rule("┏━┳┓", widths), *_row("┃", everything[0], widths, paint)]
    lines.append(_rule("┡━╇┩", widths))
    for row in everything[1:]:
        lines += _row("│", row, widths, paint)
    return [*lines, _rule("└─┴┘", widths)]


def _wrapped(cell: Cell) -> list[tuple[str, str | None]]:
    lines = [(part, colour) for line, colour in cell for part in textwrap.wrap(line, MAX_CHARS)]
    return lines or [("", None)]


def _rule(signs: str, widths: Sequence[int]) -> str:
    left, line, middle, right = tuple(signs)
    return left + middle.join(line * (width + 2) for width in widths) + right


def _row(
    edge: str,
    cells: Sequence[Sequence[tuple[str, str | None]]],
    widths: Sequence[int],
    paint: Callable[[str, str | None], str],
) -> list[str]:
    lines = []
    for number in range(max(map(len, cells))):
        shown = []
        for cell, width in zip(cells, widths, strict=True):
            text, colour = cell[number] if number < len(cell) else ("", None)
            shown.append(f" {paint(text, colour)}{' ' * (width - len(text))} ")
        lines.append(edge + edge.join(shown) + edge)
    return lines


def _plain(text: str, colour: str | None) -> str:
    del colour
    return text


def _paint(text: str, colour: str | None) -> str:
    return colorize(text, fg=colour) if colour else text
