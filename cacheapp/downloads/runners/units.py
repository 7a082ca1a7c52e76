"""Formats sizes, durations and names for people. Sizes are binary, in one system everywhere. Pure."""

from rich.cells import cell_len

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_MINUTE_S, _HOUR_S = 60, 3600
_ELLIPSIS = "…"


def format_bytes(count: float) -> str:
    """Return a size such as `512 B` or `1.5 MiB`."""
    size, unit = float(count), "B"
    for larger in _UNITS:
        if round(size, 1) < _STEP:
            break
        size, unit = size / _STEP, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def format_rate(rate_bps: float | None) -> str:
    """Return a rate such as `1.5 MiB/s`; `-` if it is not known."""
    return f"{format_bytes(rate_bps)}/s" if rate_bps else "-"


def format_seconds(seconds: float) -> str:
    """Return a duration such as `4.2 s`, `3 min 05 s` or `2 h 07 min`."""
    if round(seconds, 1) < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} min"


def shorten(name: str, cells: int) -> str:
    """Return a name in at most `cells` columns of a terminal, shortened in the middle.

    The end, which has the extension and numbers, is as long as the beginning. Characters that a
    terminal would obey are replaced.
    """
    name = "".join(character if character.isprintable() else "?" for character in name)
    if cell_len(name) <= cells:
        return name
    if cells < 1:
        return ""
    head = (cells - 1) // 2
    tail = cells - 1 - head
    return _first(name, head) + _ELLIPSIS + _first(name[::-1], tail)[::-1]


def _first(text: str, cells: int) -> str:
    """Return the characters that fit into so many columns; some characters take two."""
    used = 0
    for end, character in enumerate(text):
        used += cell_len(character)
        if used > cells:
            return text[:end]
    return text
