"""Gives a complete and verified file its final name.

The caller holds the lock under which it has found that the transfer is not aborted.
"""

from cacheapp.downloads.engine.transfer_options import (
    Existing,
    FetchedFile,
    TransferLimits,
    TransferOptions,
)
from cacheapp.downloads.http.errors import printable
from cacheapp.downloads.storage.journal import PublishedFile
from cacheapp.downloads.storage.partial import PartialFile, publish
from cacheapp.downloads.storage.sync_index import set_modified


def publish_file(
    part: PartialFile,
    options: TransferOptions,
    limits: TransferLimits,
    version: tuple[str, str],
    note: str,
) -> FetchedFile:
    """Record the file in the journal, and rename it; `version`: its ETag and Last-Modified."""
    sha256 = (part.running.digest("sha256") or b"").hex()
    mtime_ns = set_modified(part.path, version[1]) if options.sync else 0
    if options.journal is not None:
        inode = part.path.stat().st_ino
        options.journal.append(
            options.partial_name.position, PublishedFile(part.size, sha256, inode)
        )
    replace = limits.existing is Existing.REPLACE
    publish(part.path, options.target, replace=replace, fsync=limits.fsync)
    of_sync = (*version, mtime_ns) if options.sync else ()
    return FetchedFile(part.size, sha256, printable(note), *of_sync)
