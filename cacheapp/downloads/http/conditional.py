"""Requests a file only if it is not the version that is on disk already. Pure."""

import dataclasses
from collections.abc import Mapping, Sequence

_OK, _NOT_MODIFIED = 200, 304


@dataclasses.dataclass(frozen=True)
class KnownVersion:
    """The version on disk, by the headers with which it was sent."""

    size: int
    etag: str = ""
    modified: str = ""

    def headers(self) -> dict[str, str]:
        """Return the condition of a request; empty if the version has no validator."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.modified} if self.modified else {}

    def is_in(self, status: int, headers: Mapping[str, str], lengths: Sequence[str]) -> bool:
        """Return whether the response says that the version is still the current one.

        Also if the server ignores conditions and sends the whole body with the same validator and
        length.
        """
        if status == _NOT_MODIFIED:
            return bool(self.headers())
        if status != _OK or list(lengths) != [str(self.size)]:
            return False
        if self.etag:
            return headers.get("etag") == self.etag
        return bool(self.modified) and headers.get("last-modified") == self.modified
