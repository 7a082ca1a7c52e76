"""Selects the files of a prefix by globs, before they have rows in the database. Pure.

The globs are those of `cache.keys()` and Redis: `*` matches any characters, also `/`. Matching
takes linear time, whatever the glob (`backends.core.patterns`).
"""

import dataclasses
import functools
import re
from collections.abc import Iterable

from cacheapp.backends.core.patterns import glob_to_regex
from cacheapp.downloads.sources.base import SourceRefused

MAX_GLOBS = 100
_MAX_CHARACTERS = 1024


@dataclasses.dataclass(frozen=True)
class NameFilter:
    """Accepts names that match any of `include`, or all if it is empty, and none of `exclude`."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `SourceRefused` for too many globs, and for one that is too long."""
        globs = self.include + self.exclude
        if len(globs) > MAX_GLOBS:
            raise SourceRefused(f"{len(globs)} globs; expected at most {MAX_GLOBS}")
        for glob in globs:
            if not 1 <= len(glob) <= _MAX_CHARACTERS:
                shown = f"glob of {len(glob)} characters"
                raise SourceRefused(f"{shown}; expected 1 to {_MAX_CHARACTERS}")

    @classmethod
    def of(cls, include: Iterable[str], exclude: Iterable[str]) -> "NameFilter":
        """Return the filter of these globs; raise `SourceRefused`."""
        return cls(tuple(include), tuple(exclude))

    def accepts(self, name: str) -> bool:
        """Return whether a file is selected; `name`: its key below the prefix."""
        include, exclude = self._compiled
        if include and not any(glob.fullmatch(name) for glob in include):
            return False
        return not any(glob.fullmatch(name) for glob in exclude)

    @property
    def identity(self) -> str:
        """Equal for equal filters; empty without globs."""
        return f"{self.include} {self.exclude}" if self.include or self.exclude else ""

    @functools.cached_property
    def _compiled(self) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
        return [glob_to_regex(it) for it in self.include], [
            glob_to_regex(it) for it in self.exclude
        ]


ALL_NAMES = NameFilter()
