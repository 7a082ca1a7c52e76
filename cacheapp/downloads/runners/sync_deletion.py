"""Deletes what `--sync` has saved before and what the source has no more, on request only.

Invariants: nothing is deleted unless the source was listed anew, from its begin to its end, after
the job succeeded; nothing outside the destination (`storage.removal`); nothing that was changed
since it was saved, and nothing that is not in the index, unless that was requested.
"""

import dataclasses
from collections.abc import Sequence

from cacheapp.downloads.sources.base import Source, SourceEntry
from cacheapp.downloads.sources.name_filter import NameFilter
from cacheapp.downloads.storage.removal import find_files, remove_file
from cacheapp.downloads.storage.sync_index import SyncedFile, SyncIndex


@dataclasses.dataclass(frozen=True)
class Deletion:
    """What is to be deleted in a destination."""

    index: SyncIndex
    synced: Sequence[SyncedFile]
    """Files that were saved from the source before."""
    unknown: Sequence[str]
    """Names of files that are not in the index."""

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted([it.name for it in self.synced] + list(self.unknown))

    def carry_out(self) -> list[str]:
        """Delete the files; return the names of those that are gone."""
        directory = self.index.directory
        gone = [it.name for it in self.synced if remove_file(directory, it.name, it.matches)]
        return sorted(gone + [name for name in self.unknown if remove_file(directory, name)])


def plan_deletion(
    source: Source, index: SyncIndex, names: NameFilter, *, unknown: bool = False
) -> Deletion:
    """List a source and return what it has no more; raise `SourceRefused` if that fails.

    `names`: files that it does not accept are not deleted. `unknown`: also files that are not in
    the index.
    """
    entries = [found for found in source.entries() if isinstance(found, SourceEntry)]
    kept, urls = {it.name for it in entries}, {it.url for it in entries}
    if not entries:
        return Deletion(index, (), ())
    files = index.files
    synced = [
        it
        for it in files.values()
        if it.url not in urls
        and it.name not in kept
        and names.accepts(it.name)
        and _is_there(index, it)
    ]
    others: list[str] = []
    if unknown:
        kept |= {it.name for it in synced}
        there = find_files(index.directory)
        others = [name for name in there if name not in kept and names.accepts(name)]
    return Deletion(index, synced, others)


def _is_there(index: SyncIndex, file: SyncedFile) -> bool:
    try:
        return index.current(file.name, file.url) is not None
    except OSError:
        return False
