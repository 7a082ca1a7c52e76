"""Whether a failed transfer is tried again, and when. Pure.

A file that waits for its next try holds no thread: the schedule has it.
"""

import dataclasses
import datetime as dt
from email.utils import parsedate_to_datetime
from http import HTTPStatus

WORTH_RETRYING = frozenset(
    [
        *(HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS),
        *(HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY),
        *(HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT),
    ]
)
TOO_MUCH = frozenset([HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE])
"""The host says that it is asked too often."""


@dataclasses.dataclass(frozen=True)
class Retries:
    """How often, and how soon, a file is tried again."""

    tries: int = 5
    """In all, for one file."""
    first_s: float = 0.5
    """About how long after the first failure; each further wait is twice as long, up to `longest_s`."""
    longest_s: float = 30.0
    obey_s: float = 300.0
    """`Retry-After` is honoured up to this; a host that wants longer is not worth waiting for."""

    def wait_s(self, tried: int, luck: float) -> float:
        """Return how long to wait after `tried` tries; `luck` is a random number from 0 to 1.

        Half of it is left to chance, so that files that failed together do not come back together.
        """
        exponent = min(tried - 1, 32)
        return float(min(self.longest_s, self.first_s * 2**exponent)) * (0.5 + luck / 2)

    def again_in_s(self, tried: int, luck: float, retry_after_s: float | None) -> float | None:
        """Return the seconds until the next try; `None` if there is none."""
        if tried >= self.tries or (retry_after_s is not None and retry_after_s > self.obey_s):
            return None
        return max(self.wait_s(tried, luck), retry_after_s or 0.0)


def read_retry_after(text: str | None, now: dt.datetime) -> float | None:
    """Return the seconds that `Retry-After` asks for: a number, or until a date; `None` if neither."""
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
