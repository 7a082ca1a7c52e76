"""Sources of a job's files: a list of URLs here, `manifest` and `s3` for the others.

A source lists its files in a stable order: a resumed job continues behind the cursor of the last
file that has a row.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from cacheapp.downloads.http.client import Signer
from cacheapp.downloads.http.url_policy import UrlRefused, parse_http_url
from cacheapp.downloads.storage.filenames import (
    FAITHFUL,
    NameRefused,
    NameRules,
    original_name,
)
from cacheapp.errors import CacheappError

MAX_MISTAKES = 20


class SourceRefused(CacheappError):
    """The input is not a valid source; the message lists what is wrong."""


class ListingTooLong(SourceRefused):
    """The source has more files than a job may have; the message says which were left out."""


@dataclasses.dataclass(frozen=True)
class SourceEntry:
    """One file of a source."""

    cursor: str
    """Its place in the source: `entries(after=cursor)` continues behind it."""
    url: str
    name: str
    """A path, not yet unique; empty if the file is refused, with the reason in `error`."""
    checksum: str = ""
    """In the form of `checksums.read_checksum`."""
    size: int | None = None
    etag: str = ""
    error: str = ""
    original: str = ""
    """The name in the source, if `name` was changed to be portable; otherwise empty."""


class Source(Protocol):
    """A list of files to fetch."""

    @property
    def identity(self) -> str:
        """Equal for equal lists of files: an edited manifest is another source."""

    @property
    def scope(self) -> str:
        """Equal for sources of the same destination: an edited manifest is the same source."""

    @property
    def sign(self) -> Signer | None:
        """Signs requests, if the source requires authentication."""

    @property
    def trusted(self) -> frozenset[str]:
        """Origins that the operator has named, and which may have any address."""

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        """Yield the files behind a cursor, or a bare cursor for a place without a file."""


class UrlList:
    """A list of URLs. A cursor is the number of URLs up to it."""

    sign: Signer | None = None
    trusted: frozenset[str] = frozenset()

    def __init__(self, urls: Sequence[str], rules: NameRules = FAITHFUL) -> None:
        mistakes = [f"{url[:200]}: {wrong}" for url in urls if (wrong := wrong_url(url, rules))]
        refuse(mistakes)
        self._urls = tuple(urls)
        self._rules = rules
        self.identity = self.scope = "urls " + " ".join(urls)

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        """Yield a file for each URL, named by its last segment."""
        for number, url in enumerate(self._urls[int(after or 0) :], int(after or 0) + 1):
            name = self._rules.from_url(url)
            yield SourceEntry(str(number), url, name, original=original_name(url, name))


def wrong_url(url: str, rules: NameRules) -> str | None:
    """Return why a URL cannot be fetched or names no file; `None` if it is valid."""
    try:
        parse_http_url(url)
        rules.from_url(url)
    except (UrlRefused, NameRefused) as exc:
        return str(exc)
    return None


def refuse(mistakes: Sequence[str]) -> None:
    """Raise `SourceRefused` with the first mistakes, if there are any."""
    if not mistakes:
        return
    left_out = len(mistakes) - MAX_MISTAKES
    shown = [*mistakes[:MAX_MISTAKES], *([f"and {left_out} more"] if left_out > 0 else [])]
    raise SourceRefused("; ".join(shown))


def batches(
    entries: Iterable[SourceEntry | str], size: int
) -> Iterator[tuple[list[SourceEntry], str]]:
    """Yield batches of files, each with the cursor that it reaches to."""
    lot: list[SourceEntry] = []
    cursor = ""
    try:
        for found in entries:
            cursor = found if isinstance(found, str) else found.cursor
            if isinstance(found, SourceEntry):
                lot.append(found)
            if len(lot) >= size:
                yield lot, cursor
                lot = []
    except ListingTooLong:
        if lot:
            yield lot, cursor
        raise
    if cursor:
        yield lot, cursor
