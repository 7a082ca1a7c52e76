"""What can be downloaded: a list of URLs, a manifest file, a prefix of an S3 bucket (`bucket`).

A source gives its files one after the other, in an order that stays: whoever goes on with a job
asks for those behind the mark of the last one that has a row.
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
    """What was asked for cannot be a source; the message says all that is wrong with it."""


@dataclasses.dataclass(frozen=True)
class SourceEntry:
    """One file of a source."""

    cursor: str
    """Its place: `entries(after=mark)` gives those behind it."""
    url: str
    name: str
    """A safe path, not yet unique; empty where the file is refused, with `error`."""
    sha256: str = ""
    size: int | None = None
    etag: str = ""
    error: str = ""


class Source(Protocol):
    """Where files come from."""

    @property
    def identity(self) -> str:
        """The same for the same files: a manifest that was edited is another source."""

    @property
    def sign(self) -> Signer | None:
        """What proves who asks, where that is needed."""

    @property
    def trusted(self) -> frozenset[str]:
        """Origins that the operator has named as such, and which may be at any address."""

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        """Yield the files behind a mark; or a bare mark, where a place holds no file."""


class UrlList:
    """A list of URLs; a mark is the number of URLs up to it."""

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
    """A file of lines `url [sha256] [name]`; a mark is the number of the line."""

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
        """Yield the lines' files; the file is read as it is asked for."""
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
    """Return the file of a manifest's line; `None` for an empty one or a comment.

    Raise `SourceRefused` for a line that names none.
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
    """Yield some files at a time, each lot with the mark that it reaches to."""
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
