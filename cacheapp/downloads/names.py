r"""Turns URLs into file names that are safe in one directory, and differ from each other. Pure.

What a hostile name could do, and what stands against it: leave the directory (only the last
segment counts, after decoding, with `/` and `\` both as separators); hide itself or pose as one
of our partial files (no leading dot); name a device (Windows' reserved names); break a terminal or
a listing (no control or invisible characters); be refused by the file system (at most
`MAX_BYTES`); replace a sibling (names that would be one file on a case-insensitive or a
normalising file system get numbers).
"""

import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes, urlsplit

MAX_BYTES = 200
"""Longest name. File systems allow 255; the rest is room for what other programs append."""

_MAX_SUFFIX_BYTES = 20  # a longer "extension" is no extension, and may be cut
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


def plan_names(urls: Iterable[str]) -> list[str]:
    """Return a safe name for each URL, in order; a name that is taken gets a number.

    The same URLs give the same names. Linear, also where all names are one: the next free number
    of each name is kept.
    """
    taken: set[str] = set()
    next_number: dict[str, int] = {}
    names = []
    for url in urls:
        name = first = safe_name(url)
        number = next_number.get(folded(first), 2)
        while folded(name) in taken:
            name = _numbered(first, number)
            number += 1
        next_number[folded(first)] = number
        taken.add(folded(name))
        names.append(name)
    return names


def folded(name: str) -> str:
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
