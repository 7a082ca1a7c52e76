"""The parameters, limits and result of the transfer of one file."""

import dataclasses
import mmap
import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from cacheapp.downloads.engine.rate_limit import Throttle
from cacheapp.downloads.engine.split_file import PartWorker
from cacheapp.downloads.http.client import Response, Signer
from cacheapp.downloads.http.conditional import KnownVersion
from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.storage.checksums import Checksum
from cacheapp.downloads.storage.journal import Journal
from cacheapp.downloads.storage.partial import LeftoverFile, PartialFile, PartialName

READ_BYTES = 256 * 1024
FREE_SPACE_CHECK_BYTES = 64 * 2**20
"""The free disk space is checked again after so many bytes."""


class Existing(StrEnum):
    """What to do if the target name exists already."""

    FAIL = "fail"
    SKIP = "skip"
    """Keep the existing file and count it as complete."""
    REPLACE = "replace"


@dataclasses.dataclass(frozen=True)
class TransferLimits:
    """What a transfer may use. Times are in seconds."""

    max_bytes: int
    connect_s: float = 10.0
    read_s: float = 60.0
    """Longest silence on the connection."""
    stall_s: float = 60.0
    """Longest time without `stall_bytes` of data: limits a trickle, which `read_s` does not."""
    stall_bytes: int = 16 * 1024
    """An attempt that brings fewer bytes to resume from counts as a try without progress."""
    max_redirects: int = 5
    min_free_bytes: int = 0
    """Disk space that must stay free."""
    digest: bool = True
    """Compute and verify checksums, and the SHA-256 of every file."""
    fsync: bool = False
    existing: Existing = Existing.FAIL
    split_from_bytes: int = 64 * 2**20
    """A file with so many missing bytes is fetched in parts."""
    verify: bool = False
    """Read files that are already complete, and compare their digests."""
    throttle: Throttle = dataclasses.field(default_factory=Throttle)
    """The limits of bytes per second."""

    def check_length(self, found: int, shown: str = "") -> None:
        """Raise `TransferFailed` if a file is larger than allowed."""
        if found > self.max_bytes:
            raise TransferFailed(f"has {shown or found} bytes; expected at most {self.max_bytes}")

    def check_chunk(self, directory: Path, before: int, count: int) -> None:
        """Raise `TransferFailed` if bytes must not be written at this place of a file."""
        self.check_length(before + count, "more")
        if before // FREE_SPACE_CHECK_BYTES != (before + count) // FREE_SPACE_CHECK_BYTES:
            self.check_free_space(directory, 0)

    def check_free_space(self, directory: Path, needed: int) -> None:
        """Raise `TransferFailed` if `needed` bytes would leave too little disk space."""
        least = self.min_free_bytes
        if not least and needed < FREE_SPACE_CHECK_BYTES:
            return
        free = shutil.disk_usage(directory).free
        if free - needed < least:
            reserved = f", of which {least} must stay free" if least else ""
            raise TransferFailed(f"needs {needed} bytes; the disk has {free}{reserved}")


@dataclasses.dataclass(frozen=True)
class TransferOptions:
    """One file to fetch."""

    url: str
    target: Path
    partial_name: PartialName
    checksums: tuple[Checksum, ...] = ()
    size: int | None = None
    etag: str = ""
    """The ETag from a listing: the object to fetch while it exists."""
    sign: Signer | None = None
    leftover: LeftoverFile | None = None
    journal: Journal | None = None
    sync: bool = False
    """Set the file's modification time from `Last-Modified`, and return its validators."""
    known: KnownVersion | None = None
    """The version that is on disk: raise `NotModified` if it is still the current one."""
    parts: int = 1
    """The number of connections for a large file."""
    queue_workers: Callable[[list[PartWorker]], None] | None = None
    """Has other threads fetch parts too; `None`: the file is not split."""

    def can_split(self, part: PartialFile, response: Response, limits: TransferLimits) -> bool:
        """Return whether to fetch the rest of a file in parts; the first of them proves ranges."""
        if self.queue_workers is None or part.total is None or part.resume_point is None:
            return False
        if response.headers.get("accept-ranges", "").lower() == "none":
            return False
        return part.total - part.size >= limits.split_from_bytes


@dataclasses.dataclass(frozen=True)
class FetchedFile:
    """A complete file."""

    size: int
    sha256: str
    """Hexadecimal; empty if it was not computed."""
    note: str = ""
    """What the user should know about the file, although it is complete."""
    etag: str = ""
    modified: str = ""
    """`Last-Modified`; this and the other two only if the options have `sync`."""
    mtime_ns: int = 0


class Buffer:
    """A thread's read buffer, allocated with the first body and then reused.

    A memory mapping, of which only written pages take memory: 200 threads that fetch small files
    need little, and the memory returns to the system when the thread ends.
    """

    def __init__(self) -> None:
        self._bytes: mmap.mmap | None = None

    def view(self) -> memoryview:
        """Return the whole buffer."""
        if self._bytes is None:
            self._bytes = mmap.mmap(-1, READ_BYTES)
        return memoryview(self._bytes)
