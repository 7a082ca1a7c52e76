"""Template filters that format durations and sizes. Pure."""

from django import template

register = template.Library()

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_KIB = 1024
UNKNOWN = "\N{EN DASH}"


@register.filter
def cacheapp_duration(seconds: float | None) -> str:
    """Return `3.2 s`, `4 min 5 s`, `2 h 3 min` or `5 d 1 h`; a dash for `None`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:  # noqa: PLR2004 (above, tenths say nothing)
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


@register.filter
def cacheapp_bytes(count: float | None) -> str:
    """Return `512 B`, `3.4 MiB`; a dash for `None`."""
    if count is None:
        return UNKNOWN
    if count < _KIB:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= _KIB
        if count < _KIB:
            return f"{count:.1f} {unit}"
    return f"{count / _KIB:.1f} TiB"
