"""Reads manifests: files of lines that name a URL, or a checksum and a file below a base URL.

A line is `url [checksum] [name]`, or a line of `sha256sum` and `md5sum` (`<hex>  <name>`), or BSD's
`SHA256 (name) = <hex>`. What looks like a checksum and is none is refused: as a name, it would leave the
file unchecked.
"""

import codecs
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from cacheapp.downloads.http.client import Signer
from cacheapp.downloads.http.url_policy import UrlRefused, parse_http_url
from cacheapp.downloads.sources.base import SourceEntry, SourceRefused, refuse, wrong_url
from cacheapp.downloads.storage.checksums import read_checksum
from cacheapp.downloads.storage.filenames import (
    FAITHFUL,
    NameRefused,
    NameRules,
    original_name,
)

FORMS = "lines: url [checksum] [name], or with a base URL: checksum name"

_HEX = "0123456789abcdefABCDEF"
_LEAST_DIGITS = 24
_PREFIX = re.compile(r"(?:sha|md|crc|blake|xxh)[0-9a-z-]*[:=]", re.IGNORECASE)
_SRI = re.compile(r"sha(?:256|384|512)-[A-Za-z0-9+/]{43,}={0,2}")
# The separator is a blank and the mode of reading, or any white space.
_GNU = re.compile(r"(\\?)([0-9a-fA-F]{24,})(?: [ *]|[ \t]+)(.+)", re.DOTALL)
_BSD = re.compile(
    r"(\\?)(SHA2?-?256|SHA2?-?512|SHA-?1|MD5) ?\((.+)\) ?= ?([0-9a-fA-F]+)",
    re.IGNORECASE | re.DOTALL,
)
_ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


class ManifestFormat:
    """How lines become files: by which rules for names, and below which URL."""

    def __init__(self, rules: NameRules = FAITHFUL, base_url: str = "") -> None:
        self._rules = rules
        self.base_url = base_url
        if base_url:
            self.base_url = base_url if base_url.endswith("/") else f"{base_url}/"
            try:
                parse_http_url(self.base_url)
            except UrlRefused as exc:
                raise SourceRefused(f"base URL {base_url[:200]}: {exc}") from exc
            if set(base_url) & set("?#"):
                raise SourceRefused(f"base URL {base_url[:200]}: has a query; expected a folder")

    def read(self, cursor: str, line: str) -> SourceEntry | None:
        """Return the file of a line; `None` for an empty line or a comment.

        Raise `SourceRefused` for an invalid line.
        """
        line = line.rstrip("\r\n")
        if not line.strip() or line.lstrip().startswith("#"):
            return None
        try:
            if (found := _BSD.fullmatch(line.strip())) is not None:
                algorithm = found[2].lower().replace("-", "")
                algorithm = algorithm.replace("sha2256", "sha256").replace("sha2512", "sha512")
                checksum = read_checksum(found[4], algorithm)
                return self._below_base(cursor, checksum, found[1], found[3])
            if (found := _GNU.fullmatch(line)) is not None:
                return self._below_base(cursor, read_checksum(found[2]), found[1], found[3])
            return self._of_url(cursor, line)
        except ValueError as exc:
            raise SourceRefused(str(exc)) from exc

    def _below_base(self, cursor: str, checksum: str, escaped: str, name: str) -> SourceEntry:
        if not self.base_url:
            raise SourceRefused(f"{name[:200]!r} has no URL; expected a base URL for such lines")
        if escaped:
            name = re.sub(r"\\[\\nr]", lambda found: _ESCAPES[found[0]], name)
        name = name.removeprefix("./")
        path = self._path(name)
        url = self.base_url + quote(name, safe="/~")
        if (wrong := wrong_url(url, self._rules)) is not None:
            raise SourceRefused(f"{url[:200]}: {wrong}")
        return SourceEntry(cursor, url, path, checksum, original="" if path == name else name)

    def _of_url(self, cursor: str, line: str) -> SourceEntry:
        url, *rest = line.split(maxsplit=1)
        word, *after = rest[0].split(maxsplit=1) if rest else [""]
        checksum, name = "", rest[0] if rest else ""
        if _looks_like_checksum(word):
            checksum, name = _given_checksum(word), after[0] if after else ""
            if name and _looks_like_checksum(name.split(maxsplit=1)[0]):
                raise SourceRefused("has two checksums; expected one")
        try:
            parse_http_url(url)
        except UrlRefused as exc:
            raise SourceRefused(f"{url[:200]}: {exc}") from exc
        if name := name.strip().removeprefix("./"):
            path = self._path(name)
            return SourceEntry(cursor, url, path, checksum, original="" if path == name else name)
        try:
            name = self._rules.from_url(url)
        except NameRefused as exc:
            raise SourceRefused(f"{url[:200]}: {exc}") from exc
        return SourceEntry(cursor, url, name, checksum, original=original_name(url, name))

    def _path(self, name: str) -> str:
        try:
            return self._rules.from_key(name)
        except NameRefused as exc:
            raise SourceRefused(f"name {name[:200]!r}: {exc}") from exc


def _looks_like_checksum(word: str) -> bool:
    """Return whether a word is a checksum, or a mistyped one. A name like this is written `./name`."""
    digits = sum(word.count(digit) for digit in _HEX)
    is_hex = len(word) >= _LEAST_DIGITS and word.isalnum() and digits >= 0.9 * len(word)
    return is_hex or bool(_PREFIX.match(word) or _SRI.fullmatch(word))


def _given_checksum(word: str) -> str:
    try:
        checksum = read_checksum(word)
    except ValueError as exc:
        raise SourceRefused(f"{exc}; a name of this form is written ./{word[:40]}") from exc
    if ":" not in word and not checksum.startswith("sha256:"):
        algorithm = checksum.partition(":")[0]
        raise SourceRefused(
            f"{word[:140]!r} may be a checksum or a name; expected {algorithm}:{word[:8]}… or ./{word[:8]}…"
        )
    return checksum


class Manifest:
    """A manifest file, or one from standard input. A cursor is a line number."""

    sign: Signer | None = None
    trusted: frozenset[str] = frozenset()

    def __init__(self, place: Path | bytes, form: ManifestFormat | None = None) -> None:
        """`place`: the path of the file, or the content, if it cannot be read twice."""
        self._place = place
        self._form = form or ManifestFormat()
        digest = hashlib.sha256(self._form.base_url.encode())
        mistakes: list[str] = []
        count = 0
        for number, line in self._lines():
            digest.update(line.encode())
            try:
                count += self._form.read(str(number), line) is not None
            except SourceRefused as exc:
                mistakes.append(f"line {number}: {exc}")
        refuse(mistakes)
        if not count:
            raise SourceRefused(f"{self._shown}: no line names a URL")
        self.identity = f"manifest {digest.hexdigest()}"
        path = "-" if isinstance(place, bytes) else place.absolute()
        self.scope = f"manifest {self._form.base_url} {path}"

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        """Yield the files of the lines, reading the manifest lazily."""
        for number, line in self._lines():
            if number > int(after or 0) and (entry := self._form.read(str(number), line)):
                yield entry

    @property
    def _shown(self) -> str:
        return "standard input" if isinstance(self._place, bytes) else str(self._place)

    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            with self._open() as file:
                yield from numbered_lines(file)
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "is not UTF-8"
            raise SourceRefused(f"{self._shown}: {reason}") from exc

    def _open(self) -> BinaryIO:
        return io.BytesIO(self._place) if isinstance(self._place, bytes) else self._place.open("rb")


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, without a byte order mark.

    A line ends in a line feed: names may contain what `str.splitlines` also takes for an end.
    """
    for number, line in enumerate(file, 1):
        yield number, line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode()
