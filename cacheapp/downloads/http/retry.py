"""Which statuses are worth another attempt, and how to read `Retry-After`. Pure.

A file that waits for its next attempt occupies no thread: it is in the scheduler's queue.
"""

import datetime as dt
from email.utils import parsedate_to_datetime
from http import HTTPStatus

RETRYABLE_STATUSES = frozenset(
    [
        *(HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS),
        *(HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY),
        *(HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT),
        *range(520, 525),  # Cloudflare's: it did not reach the origin, or got no valid response
    ]
)
OVERLOAD_STATUSES = frozenset([HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE])
"""The host reports overload."""


def read_retry_after(text: str | None, now: dt.datetime) -> float | None:
    """Return the seconds of a `Retry-After`, a number or a date; `None` if it is invalid."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, (moment - now).total_seconds())
