"""Template filters that format durations, sizes, numbers and times for people."""

import datetime as dt

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_KIB = 1024
UNKNOWN = "\N{EN DASH}"
_BREAK = mark_safe("<wbr>.")


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


@register.filter
def cacheapp_count(number: float | None) -> str:
    """Return `10,000`; a dash for `None`."""
    return UNKNOWN if number is None else f"{number:,}"


@register.filter
def cacheapp_dotted(name: str) -> SafeString:
    """Return a dotted name that is wrapped before its dots where a line is too short for it."""
    return format_html_join(_BREAK, "{}", ((part,) for part in name.split(".")))


@register.filter
def cacheapp_ago(moment: dt.datetime | None) -> SafeString | str:
    """Return `3 min ago` as a `<time>`, with the exact time on hover; a dash for `None`.

    live.js replaces the exact time by that of the reader's time zone.
    """
    if moment is None:
        return UNKNOWN
    seconds = (timezone.now() - moment).total_seconds()
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        moment.isoformat(timespec="seconds"),
        moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S"),
        _ago(seconds),
    )


@register.filter
def cacheapp_time(moment: dt.datetime | str | None) -> SafeString | str:
    """Return an exact time as a `<time>`, in UTC; a dash for `None`. Also reads the ISO form.

    live.js replaces it by that of the reader's time zone.
    """
    if isinstance(moment, str):
        moment = dt.datetime.fromisoformat(moment)
    if moment is None:
        return UNKNOWN
    exact = moment.astimezone(dt.UTC)
    return format_html(
        '<time datetime="{}" data-exact>{} UTC</time>',
        exact.isoformat(timespec="seconds"),
        exact.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _ago(seconds: float) -> str:
    if seconds < 1:
        return "now"
    for unit_s, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min"), (1, "s")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {name} ago"
    return "now"
