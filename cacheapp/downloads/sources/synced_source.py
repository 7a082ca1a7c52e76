"""A source without the files that are on disk as they are in the source, for `--sync`.

Which files are left out depends on what the source tells: the size and ETag of a listing, or a
given checksum. Others are requested, with the validator of the version on disk as a condition.

A file that is left out has no row, so its name is not taken within the job. Therefore names must be
distinct in the source (`require_distinct_names`): a number that makes a name unique would change
from job to job.
"""

from collections.abc import Iterator

from cacheapp.downloads.sources.base import Source, SourceEntry, SourceRefused
from cacheapp.downloads.storage.sync_index import SyncIndex


class SyncedSource:
    """The changed files of a source; `unchanged` counts those that were left out so far."""

    def __init__(self, source: Source, index: SyncIndex, *, verify: bool = False) -> None:
        self._source = source
        self._index = index
        self._verify = verify
        self.unchanged = 0
        self.identity = source.identity
        self.scope = source.scope
        self.sign = source.sign
        self.trusted = source.trusted

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        """Yield the changed files behind a cursor, and a bare cursor for each other file."""
        for found in self._source.entries(after):
            if isinstance(found, SourceEntry) and self._is_unchanged(found):
                self.unchanged += 1
                yield found.cursor
            else:
                yield found

    def _is_unchanged(self, entry: SourceEntry) -> bool:
        if not entry.name or not (entry.etag or entry.checksum):
            return False
        try:
            known = self._index.current(entry.name, entry.url, verify=self._verify)
        except OSError:  # fetched, and reported if the error stays
            return False
        if known is None:
            return False
        if entry.checksum:
            return entry.checksum in {known.checksum, f"sha256:{known.sha256}"}
        return (entry.etag, entry.size) == (known.etag, known.size)


def require_distinct_names(source: Source) -> None:
    """Raise `SourceRefused` if two files of a manifest or list have the same name."""
    first: dict[str, str] = {}
    for found in source.entries():
        if isinstance(found, SourceEntry) and found.name:
            other = first.setdefault(found.name, found.cursor)
            if other != found.cursor:
                raise SourceRefused(
                    f"files {other} and {found.cursor} have the same name {found.name[:200]!r}; "
                    "--sync expects a name of its own for each"
                )
