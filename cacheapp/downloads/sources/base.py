"""Sources of a job's files: a list of URLs or a manifest file; `s3` adds a prefix of a bucket.

A source lists its files in a stable order: a resumed job continues behind the cursor of the last
file that has a row.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from cacheapp.downloads.http.client import Signer
from cacheapp.downloads.http.url_policy import UrlRefused, parse_http_url
from cacheapp.downloads.storage.filenames import KeyRefused, path_from_key, safe_name
from cacheapp.errors import CacheappError

MAX_MISTAKES = 20
_SHA256 = re.compile("[0-9a-fA-F]{64}")


class SourceRefused(CacheappError):
    """The input is not a valid source; the message lists what is wrong."""


@dataclasses.dataclass(frozen=True)
class SourceEntry:
    """One file of a source."""

    cursor: str
    """Its place in the source: `entries(after=cursor)` continues behind it."""
    url: str
    name: str
    """A safe path, not yet unique; empty if the file is refused, with the reason in `error`."""
    sha256: str = ""
    size: int | None = None
    etag: str = ""
    error: str = ""


class Source(Protocol):
    """A list of files to fetch."""

    @property
    def identity(self) -> str:
        """Equal for equal lists of files: an edited manifest is another source."""

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

    def __init__(self, urls: Sequence[str]) -> None:
        mistakes = [f"{url[:200]}: {wrong}" for url in urls if (wrong := _wrong(url))]
        _refuse(mistakes)
        self._urls = tuple(urls)
        self.identity = "urls " + " ".join(urls)

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        """Yield a file for each URL, named by its last segment."""
        for number, url in enumerate(self._urls[int(after or 0) :], int(after or 0) + 1):
            yield SourceEntry(str(number), url, safe_name(url))


class Manifest:
    """A file of lines `url [sha256] [name]`. A cursor is a line number."""

    sign: Signer | None = None
    trusted: frozenset[str] = frozenset()

    def __init__(self, path: Path) -> None:
        self._path = path
        digest = hashlib.sha256()
        mistakes: list[str] = []
        count = 0
        for number, line in self._lines():
            digest.update(line.encode() + b"\n")
            try:
                count += read_line(str(number), line) is not None
            except SourceRefused as exc:
                mistakes.append(f"line {number}: {exc}")
        _refuse(mistakes)
        if not count:
            raise SourceRefused(f"{path}: no line names a URL")
        self.identity = f"manifest {digest.hexdigest()}"

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        """Yield the files of the lines, reading the manifest lazily."""
        for number, line in self._lines():
            if number > int(after or 0) and (entry := read_line(str(number), line)) is not None:
                yield entry

    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            with self._path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    yield number, line.strip()
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "is not UTF-8"
            raise SourceRefused(f"{self._path}: {reason}") from exc


def read_line(cursor: str, line: str) -> SourceEntry | None:
    """Return the file of a manifest line; `None` for an empty line or a comment.

    Raise `SourceRefused` for an invalid line.
    """
    if not line or line.startswith("#"):
        return None
    url, _, rest = line.partition(" ")
    if (wrong := _wrong(url)) is not None:
        raise SourceRefused(f"{url[:200]}: {wrong}")
    sha256, _, name = rest.strip().partition(" ")
    if not _SHA256.fullmatch(sha256):
        sha256, name = "", rest
    name = name.strip()
    try:
        path = path_from_key(name) if name else safe_name(url)
    except KeyRefused as exc:
        raise SourceRefused(f"name {name[:200]!r}: {exc}") from exc
    return SourceEntry(cursor, url, path, sha256.lower())


def _wrong(url: str) -> str | None:
    try:
        parse_http_url(url)
    except UrlRefused as exc:
        return str(exc)
    return None


def _refuse(mistakes: Sequence[str]) -> None:
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
    for found in entries:
        cursor = found if isinstance(found, str) else found.cursor
        if isinstance(found, SourceEntry):
            lot.append(found)
        if len(lot) >= size:
            yield lot, cursor
            lot = []
    if cursor:
        yield lot, cursor
