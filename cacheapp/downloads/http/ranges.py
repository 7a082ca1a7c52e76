"""Range requests: which bytes to request, and whether a response continues the file. Pure.

Rule: bytes of two representations are never mixed in one file. A partial file is continued only
with a response that provably comes from the same representation: the server sent the same *strong*
validator with the first bytes and sends it again with the next ones (RFC 9110, 8.8, 13.1.5 and 14).
A weak validator may be equal for objects with other bytes, and a server that ignores `If-Range`
answers 206 with bytes of another object. In doubt the file is fetched again from the start.
"""

import dataclasses
import datetime as dt
import re
from email.utils import parsedate_to_datetime
from enum import Enum

_ENTITY_TAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
_CONTENT_RANGE = re.compile(r"bytes +([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)
_STRONG_AFTER = dt.timedelta(seconds=60)
"""A date identifies a representation only if it was old when it was sent: a file may change twice
within the second that the date resolves, and the clocks of a site's servers differ."""


@dataclasses.dataclass(frozen=True)
class ResumePoint:
    """The first `size` bytes of a representation, stored on disk."""

    size: int
    validator: str
    """An entity-tag with its quotes, or a date as the server wrote it: the value for `If-Range`."""
    total: int | None
    """The total size, if the server has sent it."""


@dataclasses.dataclass(frozen=True)
class ContentRange:
    """The `Content-Range` of a 206: `first` to `last`, both included, of `total`."""

    first: int
    last: int
    total: int | None


class RangeDecision(Enum):
    """What to do with the response to a request for the rest of a file."""

    CONTINUE = "its body goes behind what is there"
    RESTART = "its body is the whole file: drop what is there"
    REQUEST_WHOLE = "it is of no use: drop what is there, and ask for the whole file"
    NOT_A_FILE = "it brings no bytes: an error, or a redirect"


def strong_validator(
    etag: str | None, last_modified: str | None = None, date: str | None = None
) -> str | None:
    """Return the strong validator in the headers of a response, or `None`."""
    if etag is not None and _ENTITY_TAG.fullmatch(etag.strip()):
        return etag.strip()
    modified, sent = _moment(last_modified), _moment(date)
    if modified is None or sent is None or sent - modified < _STRONG_AFTER:
        return None
    return last_modified.strip() if last_modified else None


def range_headers(resume_point: ResumePoint) -> dict[str, str]:
    """Return the headers that request the rest, or the whole file if it has changed."""
    return {"Range": f"bytes={resume_point.size}-", "If-Range": resume_point.validator}


def part_headers(part_first: int, part_end: int, validator: str) -> dict[str, str]:
    """Return the headers that request a part, or the whole file if it has changed."""
    return {"Range": f"bytes={part_first}-{part_end - 1}", "If-Range": validator}


def is_complete(resume_point: ResumePoint) -> bool:
    """Return whether no byte is missing: a request beyond the end would be an error."""
    return resume_point.size == resume_point.total


def read_content_range(text: str | None) -> ContentRange | None:
    """Return the parsed `Content-Range`, or `None` if it is invalid."""
    found = _CONTENT_RANGE.fullmatch(text.strip()) if text else None
    if found is None:
        return None
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if last < first or (total is not None and last >= total):
        return None
    return ContentRange(first, last, total)


def decide(
    status: int, resume_point: ResumePoint, content_range: str | None, validator: str | None
) -> RangeDecision:
    """Decide what to do with the response to `range_headers(resume_point)`.

    `validator` is the response's own (`matching_validator`). 200: the server ignores ranges or the
    object has changed; its body is the whole file. 416: the object is shorter now, or the server
    refuses the range.
    """
    if status == 200:  # noqa: PLR2004 (HTTP's own numbers, here and below)
        return RangeDecision.RESTART
    if status == 416:  # noqa: PLR2004
        return RangeDecision.REQUEST_WHOLE
    if status != 206:  # noqa: PLR2004
        return RangeDecision.NOT_A_FILE
    found = read_content_range(content_range)
    if found is None or found.first != resume_point.size or validator != resume_point.validator:
        return RangeDecision.REQUEST_WHOLE
    totals = {resume_point.total, found.total} - {None}
    if len(totals) != 1:  # two objects; or an unknown end, so that truncation would go unnoticed
        return RangeDecision.REQUEST_WHOLE
    return RangeDecision.CONTINUE


def matching_validator(
    resume_point: ResumePoint, etag: str | None, last_modified: str | None
) -> str | None:
    """Return the 206's header of the same kind as the stored validator: its tag, or its date."""
    found = etag if resume_point.validator.startswith('"') else last_modified
    return None if found is None else found.strip()


def _moment(text: str | None) -> dt.datetime | None:
    if not text:
        return None
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)
