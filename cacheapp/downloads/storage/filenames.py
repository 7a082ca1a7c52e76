r"""Turns URLs and object keys into safe, distinct file names for one directory. Pure.

Threats of a hostile name, and the defences: leaving the directory (only the last segment is used,
after decoding, with `/` and `\` both as separators); hiding itself or posing as a partial file (no
leading dot); naming a device (Windows' reserved names); breaking a terminal or a listing (no
control or invisible characters); being refused by the file system (at most `MAX_BYTES`); replacing
a sibling (names that are equal on a case-insensitive or normalising file system are numbered).
"""

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import unquote_to_bytes, urlsplit

from cacheapp.errors import CacheappError

MAX_BYTES = 200
"""Longest name. File systems allow 255; the rest is left for suffixes of other programs."""

MAX_PATH_BYTES = 1200
"""Longest name with folders: an S3 key has at most 1,024 bytes, and numbers may be added."""

REFUSED = "(refused "
"""Start of the placeholder name in the row of a file whose key was refused."""

_MAX_SUFFIX_BYTES = 20  # a longer suffix is not an extension and may be cut
_MAX_KEY_BYTES = 1024
_DRIVE = re.compile("[A-Za-z]:")
# Forbidden on Windows and its shares, and the folder separators.
_FORBIDDEN = frozenset('<>:"|?*/\\')
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789¹²³"]
)


def safe_name(url: str) -> str:
    """Return the file name for a URL: its last path segment, made safe."""
    try:
        path = urlsplit(url).path
    except ValueError:  # for example an unclosed [: the report still needs a name
        path = ""
    decoded = unquote_to_bytes(path).decode("utf-8", errors="replace")
    return _clean(decoded.replace("\\", "/").rstrip("/").rpartition("/")[2])


class KeyRefused(CacheappError):
    """An object key that cannot be used as a path; the message says why."""


def path_from_key(key: str) -> str:
    """Return the path of an object below the destination: its key, with each folder made safe.

    Raise `KeyRefused` for a key that would leave the directory or is ambiguous: repairing such a
    key would store the object at an unexpected place.
    """
    if any(_is_unsafe(character) and character not in _FORBIDDEN for character in key):
        raise KeyRefused("the key has control or invisible characters")
    if "\\" in key:
        raise KeyRefused("the key has a backslash, which separates folders on some systems")
    segments = key.split("/")
    if key.startswith("/"):
        raise KeyRefused("the key begins with /: an absolute path")
    if ".." in segments or "." in segments:
        raise KeyRefused("the key has . or .. as a folder: it would leave the directory")
    if "" in segments:
        raise KeyRefused("the key has an empty folder or name")
    if _DRIVE.match(key):
        raise KeyRefused("the key begins with a drive letter")
    if _size(key) > _MAX_KEY_BYTES or any(_size(segment) > MAX_BYTES for segment in segments):
        raise KeyRefused(f"a name of the key is longer than {MAX_BYTES} bytes")
    return "/".join(_clean(segment) for segment in segments)


def name_key(name: str) -> str:
    """Return the same short text for names that are equal on some file system."""
    return hashlib.blake2b(fold_name(name).encode(), digest_size=16).hexdigest()


def first_free_name(name: str, is_taken: Callable[[str], bool], number: int = 2) -> tuple[str, int]:
    """Return the name, with a number if it is taken, and the number to try next time."""
    found = name
    while is_taken(found):
        folder, slash, last = name.rpartition("/")
        found = folder + slash + _numbered(last, number)
        number += 1
    return found, number


def plan_names(urls: Iterable[str]) -> list[str]:
    """Return a safe name for each URL, in order; duplicates are numbered."""
    return number_duplicates(safe_name(url) for url in urls)


def number_duplicates(wished: Iterable[str]) -> list[str]:
    """Return the names in order; duplicates are numbered.

    Deterministic, and linear even if all names are equal: the next free number of each name is
    kept.
    """
    taken: set[str] = set()
    next_number: dict[str, int] = {}
    names = []
    for first in wished:
        number = next_number.get(fold_name(first), 2)
        name, number = first_free_name(first, lambda found: fold_name(found) in taken, number)
        next_number[fold_name(first)] = number
        taken.add(fold_name(name))
        names.append(name)
    return names


def folders_of(name: str) -> Iterator[str]:
    """Yield the folders of a name: `a` and `a/b` for `a/b/c`."""
    for found in re.finditer("/", name):
        yield name[: found.start()]


def folder_conflicts(names: Sequence[str]) -> list[str]:
    """Return for each name why no file can have it (it is a folder of another file), or "".

    Empty names are ignored. When sorted by folders, a name is followed directly by what is below
    it, so time and memory do not grow with the depth of the folders.
    """
    reasons = [""] * len(names)
    paths = sorted(
        ([fold_name(segment) for segment in name.split("/")], number)
        for number, name in enumerate(names)
        if name
    )
    for (path, number), (below, _) in itertools.pairwise(paths):
        if len(below) > len(path) and below[: len(path)] == path:
            reasons[number] = f"its name {names[number][:200]!r} is a folder of another file"
    return reasons


def fold_name(name: str) -> str:
    """Return the form that two names share if they are equal on some file system."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _clean(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if _is_unsafe(character) else character for character in name)
    name = _cut(name, MAX_BYTES - 1)  # one byte is reserved for the "_" of a device name
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


def _numbered(name: str, number: int) -> str:
    stem, suffix = _split(name)
    mark = f"-{number}"
    return _cut(stem, MAX_BYTES - _size(mark) - _size(suffix)) + mark + suffix


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
