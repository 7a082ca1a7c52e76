"""Small area charts that end now, as the path of an SVG. Pure."""

from collections.abc import Sequence

WIDTH, HEIGHT = 600, 60

Points = Sequence[tuple[float, float]]
"""Pairs of a time and a value, in the order of time."""


def draw_area(points: Points, now_s: float, shown_s: float, most: float | None = None) -> str:
    """Draw the values of the last `shown_s`; `most` has the full height, by default the largest value.

    Empty without two values, or if all are 0.
    """
    shown = [(at_s, value) for at_s, value in points if now_s - shown_s <= at_s <= now_s]
    top = most or max((value for _, value in shown), default=0)
    if len(shown) < 2 or not top or not any(value for _, value in shown):  # noqa: PLR2004 (a line needs two)
        return ""
    places = [
        (
            round(WIDTH * (1 - (now_s - at_s) / shown_s), 1),
            round((HEIGHT - 2) * (1 - value / top) + 1, 1),
        )
        for at_s, value in shown
    ]
    line = "L".join(f"{x} {y}" for x, y in places)
    return f"M{places[0][0]} {HEIGHT}L{line}L{places[-1][0]} {HEIGHT}Z"
