r"""Turns URLs and object keys into distinct file names for one directory. Pure.

A name is faithful: a file of a Zarr or Spark store is found only under the name of its key. What must
not or cannot exist is refused, never repaired: a path that leaves the directory, an empty name, a name
that is too long, and a name of a run's own directory or partial file.

`PORTABLE` rules change names for other systems and programs: no leading dot, no reserved names and
characters of Windows, no control or invisible characters, at most `MAX_PORTABLE_BYTES`; names that are
equal on a case-insensitive or normalising file system are numbered.
"""

import dataclasses
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import unquote_to_bytes, urlsplit

from cacheapp.errors import CacheappError

MAX_BYTES = 255
"""Longest name that common file systems accept. No other program's suffix is added to it: the names of
partial files do not contain it."""

MAX_PORTABLE_BYTES = 200
"""Longest portable name: the rest is left for suffixes of other programs."""

MAX_PATH_BYTES = 1200
"""Longest name with folders: an S3 key has at most 1,024 bytes, and numbers may be added."""

REFUSED = "(refused "
"""Start of the placeholder name in the row of a file with a refused key."""

_MAX_SUFFIX_BYTES = 20  # a longer suffix is not an extension and may be cut
_MAX_KEY_BYTES = 1024
_DRIVE = re.compile("[A-Za-z]:")
_SURROGATE = re.compile("[\ud800-\udfff]")
_OWN = re.compile(
    # Run directories, also while they are removed; partial files; indexes of what was fetched.
    r"\.[0-9a-f]{12}(\.[0-9]+(\.[0-9a-f]{32})?|-[0-9]+\..*\.part|\.sync(\.new)?)",
    re.IGNORECASE | re.DOTALL,
)
_NO_NAME = frozenset(["", ".", ".."])
# Forbidden on Windows and its shares, and the folder separators.
_FORBIDDEN = frozenset('<>:"|?*/\\')
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789¹²³"]
)


class NameRefused(CacheappError):
    """A URL or key that gives no file name; the message says why."""


@dataclasses.dataclass(frozen=True)
class NameRules:
    """How the files of a job are named."""

    portable: bool

    @property
    def max_bytes(self) -> int:
        """The longest name, without its folders."""
        return MAX_PORTABLE_BYTES if self.portable else MAX_BYTES

    def from_url(self, url: str) -> str:
        """Return the file name for a URL: its last path segment, or `file` if that is no name.

        Raise `NameRefused` if no file can have it; with portable names this never happens.
        """
        if self.portable:
            return _clean(_last_segment(url).replace("\\", "/").rstrip("/").rpartition("/")[2])
        name = _last_segment(url)
        if name in _NO_NAME:
            return "file"
        _check(name, self.max_bytes)
        return name

    def from_key(self, key: str) -> str:
        """Return the path below the destination for an object key or a name with folders.

        Raise `NameRefused` for a key that would leave the directory or that no file can have:
        repairing such a key would store the object at an unexpected place.
        """
        if not self.portable:
            _check(key, self.max_bytes)
            return key
        if any(_is_unsafe(character) and character not in _FORBIDDEN for character in key):
            raise NameRefused("the name has control or invisible characters")
        if "\\" in key:
            raise NameRefused("the name has a backslash, which separates folders on some systems")
        if _DRIVE.match(key):
            raise NameRefused("the name begins with a drive letter")
        _check_path(key, self.max_bytes)
        return "/".join(_clean(segment) for segment in key.split("/"))

    def fold(self, name: str) -> str:
        """Return the form that two names share if they must not both exist."""
        return fold_name(name) if self.portable else name

    def key(self, name: str) -> str:
        """Return the same short text for names that must not both exist."""
        return hashlib.blake2b(self.fold(name).encode(), digest_size=16).hexdigest()

    def first_free(
        self, name: str, is_taken: Callable[[str], bool], number: int = 2
    ) -> tuple[str, int]:
        """Return the name, with a number if it is taken, and the number to try next time."""
        found = name
        while is_taken(found):
            folder, slash, last = name.rpartition("/")
            found = folder + slash + _numbered(last, number, self.max_bytes)
            number += 1
        return found, number

    def number_duplicates(self, wished: Iterable[str]) -> list[str]:
        """Return the names in order; duplicates are numbered.

        Deterministic, and linear even if all names are equal: the next free number of each name is
        kept.
        """
        taken: set[str] = set()
        next_number: dict[str, int] = {}
        names = []
        for first in wished:
            number = next_number.get(self.fold(first), 2)
            name, number = self.first_free(first, lambda found: self.fold(found) in taken, number)
            next_number[self.fold(first)] = number
            taken.add(self.fold(name))
            names.append(name)
        return names

    def folder_conflicts(self, names: Sequence[str]) -> list[str]:
        """Return for each name why no file can have it (it is a folder of another file), or "".

        Empty names are ignored. When sorted by folders, a name is followed directly by what is
        below it, so time and memory do not grow with the depth of the folders.
        """
        reasons = [""] * len(names)
        paths = sorted(
            ([self.fold(segment) for segment in name.split("/")], number)
            for number, name in enumerate(names)
            if name
        )
        for (path, number), (below, _) in itertools.pairwise(paths):
            if len(below) > len(path) and below[: len(path)] == path:
                reasons[number] = f"its name {names[number][:200]!r} is a folder of another file"
        return reasons


FAITHFUL = NameRules(portable=False)
PORTABLE = NameRules(portable=True)


def original_name(url: str, name: str) -> str:
    """Return the last path segment of a URL if a file with this name is renamed; else ""."""
    segment = _last_segment(url)
    return "" if segment in _NO_NAME or segment == name else segment.replace("\0", "\ufffd")


def folders_of(name: str) -> Iterator[str]:
    """Yield the folders of a name: `a` and `a/b` for `a/b/c`."""
    for found in re.finditer("/", name):
        yield name[: found.start()]


def fold_name(name: str) -> str:
    """Return the form that two names share if they are equal on some file system."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _last_segment(url: str) -> str:
    try:
        path = urlsplit(url).path
    except ValueError:  # for example an unclosed [: the report still needs a name
        path = ""
    decoded = unquote_to_bytes(path).decode("utf-8", errors="replace")
    return decoded.rstrip("/").rpartition("/")[2]


def _check(name: str, max_bytes: int) -> None:
    if "\0" in name:
        raise NameRefused("the name has a NUL character")
    if _SURROGATE.search(name):
        raise NameRefused("the name has half of a surrogate pair, which is no character")
    _check_path(name, max_bytes)
    if any(map(is_own_name, name.split("/"))):
        raise NameRefused("the name has the form of a directory or partial file of a running job")


def is_own_name(segment: str) -> bool:
    """Return whether a name has the form of a directory or file that jobs keep beside their files."""
    return _OWN.fullmatch(segment) is not None


def _check_path(name: str, max_bytes: int) -> None:
    segments = name.split("/")
    if name.startswith("/"):
        raise NameRefused("the name begins with /: an absolute path")
    if ".." in segments or "." in segments:
        raise NameRefused("the name has . or .. as a folder: it would leave the directory")
    if "" in segments:
        raise NameRefused("the name has an empty folder or name")
    if any(_size(segment) > max_bytes for segment in segments):
        raise NameRefused(f"a part of the name is longer than {max_bytes} bytes")
    if _size(name) > _MAX_KEY_BYTES:
        raise NameRefused(f"the name is longer than {_MAX_KEY_BYTES} bytes")


def _clean(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if _is_unsafe(character) else character for character in name)
    name = _cut(name, MAX_PORTABLE_BYTES - 1)  # one byte is reserved for the "_" of a device name
    name = name.strip().rstrip(". ")  # Windows drops them, which may make two names equal
    if name.startswith("."):
        name = "_" + name[1:]
    if name.partition(".")[0].rstrip().lower() in _DEVICES:
        name = "_" + name
    return name or "file"


def _is_unsafe(character: str) -> bool:
    # C: control, invisible formatting, surrogate, private, unassigned; Zl, Zp: line and paragraph
    # separators.
    category = unicodedata.category(character)
    return character in _FORBIDDEN or category[0] == "C" or category in {"Zl", "Zp"}


def _numbered(name: str, number: int, max_bytes: int) -> str:
    stem, suffix = _split(name)
    mark = f"-{number}"
    return _cut(stem, max_bytes - _size(mark) - _size(suffix)) + mark + suffix


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    if not stem or _size(suffix) > _MAX_SUFFIX_BYTES:
        return name, ""
    return stem, dot + suffix


def _cut(name: str, limit: int) -> str:
    """Shorten to `limit` bytes at a character boundary, keeping the extension."""
    if _size(name) <= limit:
        return name
    stem, suffix = _split(name)
    room = limit - _size(suffix)
    return stem.encode()[:room].decode(errors="ignore") + suffix


def _size(text: str) -> int:
    return len(text.encode())
