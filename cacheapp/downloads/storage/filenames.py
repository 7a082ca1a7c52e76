r"""Turns URLs and keys into file names that are safe in one directory, and differ from each other. Pure.

What a hostile name could do, and what stands against it: leave the directory (only the last
segment counts, after decoding, with `/` and `\` both as separators); hide itself or pose as one
of our partial files (no leading dot); name a device (Windows' reserved names); break a terminal or
a listing (no control or invisible characters); be refused by the file system (at most
`MAX_BYTES`); replace a sibling (names that would be one file on a case-insensitive or a
normalising file system get numbers).
"""

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import unquote_to_bytes, urlsplit

from cacheapp.errors import CacheappError

MAX_BYTES = 200
"""Longest name. File systems allow 255; the rest is room for what other programs append."""

MAX_PATH_BYTES = 1200
"""Longest name with its folders: an S3 key has at most 1,024 bytes, and numbers may be added."""

REFUSED = "(refused "
"""How the stand-in for a name begins, in the row of a file that has none: its key was refused."""

_MAX_SUFFIX_BYTES = 20  # a longer "extension" is no extension, and may be cut
_MAX_KEY_BYTES = 1024
_DRIVE = re.compile("[A-Za-z]:")
_FORBIDDEN = frozenset('<>:"|?*/\\')  # on Windows and its shares, and what separates folders
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789¹²³"]
)


def safe_name(url: str) -> str:
    """Return the name under which what `url` gives is stored: its last path segment, made safe."""
    try:
        path = urlsplit(url).path
    except ValueError:  # such as an unclosed [: a name is still needed to report it under
        path = ""
    decoded = unquote_to_bytes(path).decode("utf-8", errors="replace")
    return _clean(decoded.replace("\\", "/").rstrip("/").rpartition("/")[2])


class KeyRefused(CacheappError):
    """A key of an object store that cannot be a path; the message says why."""


def path_from_key(key: str) -> str:
    """Return where an object is stored below the destination: its sub-path, each folder made safe.

    Raise `KeyRefused` for what would lead elsewhere, or could be two paths: repairing such a key
    would put the object where nobody looks for it.
    """
    if any(_is_unsafe(character) and character not in _FORBIDDEN for character in key):
        raise KeyRefused("the key has control or invisible characters")
    if "\\" in key:
        raise KeyRefused("the key has a backslash, which separates folders on some systems")
    segments = key.split("/")
    if key.startswith("/"):
        raise KeyRefused("the key begins with /: an absolute path")
    if ".." in segments or "." in segments:
        raise KeyRefused("the key has . or .. as a folder: it would lead elsewhere")
    if "" in segments:
        raise KeyRefused("the key has an empty folder or name")
    if _DRIVE.match(key):
        raise KeyRefused("the key begins with a drive letter")
    if _size(key) > _MAX_KEY_BYTES or any(_size(segment) > MAX_BYTES for segment in segments):
        raise KeyRefused(f"a name of the key is longer than {MAX_BYTES} bytes")
    return "/".join(_clean(segment) for segment in segments)


def name_key(name: str) -> str:
    """Return the same short text for names that some file system takes for one and the same."""
    return hashlib.blake2b(fold_name(name).encode(), digest_size=16).hexdigest()


def first_free_name(name: str, is_taken: Callable[[str], bool], number: int = 2) -> tuple[str, int]:
    """Return the name, numbered if it has to be, and the number to begin with the next time."""
    found = name
    while is_taken(found):
        folder, slash, last = name.rpartition("/")
        found = folder + slash + _numbered(last, number)
        number += 1
    return found, number


def plan_names(urls: Iterable[str]) -> list[str]:
    """Return a safe name for each URL, in order; a name that is taken gets a number."""
    return number_duplicates(safe_name(url) for url in urls)


def number_duplicates(wished: Iterable[str]) -> list[str]:
    """Return safe names as they are, in order; one that is taken gets a number.

    The same names give the same. Linear, also where all are one: the next free number of each
    name is kept.
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
    """Yield the folders that a name leads through: `a` and `a/b` for `a/b/c`."""
    for found in re.finditer("/", name):
        yield name[: found.start()]


def folder_conflicts(names: Sequence[str]) -> list[str]:
    """Return for each name why no file can have it, or empty text: it is a folder of another one.

    An empty name is nobody's. Sorted by folders, what lies below a name comes right behind it: so
    time and memory do not grow with the depth of the folders.
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
    """Return what two names have in common that some file system takes for one and the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _clean(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if _is_unsafe(character) else character for character in name)
    name = _cut(name, MAX_BYTES - 1)  # one byte is left for the "_" of a device
    name = name.strip().rstrip(". ")  # Windows drops them, and then two names are one
    if name.startswith("."):
        name = "_" + name[1:]
    if name.partition(".")[0].rstrip().lower() in _DEVICES:
        name = "_" + name
    return name or "file"


def _is_unsafe(character: str) -> bool:
    # C: controls, invisible formatting, surrogates, private, unassigned; Zl, Zp: line ends.
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
    """Shorten to `limit` bytes between two characters, keeping the extension."""
    if _size(name) <= limit:
        return name
    stem, suffix = _split(name)
    room = limit - _size(suffix)
    return stem.encode()[:room].decode(errors="ignore") + suffix


def _size(text: str) -> int:
    return len(text.encode())
