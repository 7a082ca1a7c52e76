"""What a transfer is asked for, within which limits, and what it answers."""

import dataclasses
import mmap
import shutil
from enum import StrEnum
from pathlib import Path

from cacheapp.downloads.http.client import Signer
from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.storage.checksums import Checksum
from cacheapp.downloads.storage.journal import Journal
from cacheapp.downloads.storage.partial import LeftoverFile, PartialName

READ_BYTES = 256 * 1024
FREE_SPACE_CHECK_BYTES = 64 * 2**20
"""After so many bytes the disk is looked at again."""


class Existing(StrEnum):
    """What to do where a file has the wanted name already."""

    FAIL = "fail"
    SKIP = "skip"
    """Leave it, and count it as there."""
    REPLACE = "replace"


@dataclasses.dataclass(frozen=True)
class TransferLimits:
    """What a transfer may take; times in seconds."""

    max_bytes: int
    connect_s: float = 10.0
    read_s: float = 60.0
    """Silence on the connection."""
    stall_s: float = 60.0
    """Time in which `READ_BYTES` must come: a trickle keeps `read_s` content, but not this."""
    max_redirects: int = 5
    min_free_bytes: int = 0
    """What stays free on the disk."""
    digest: bool = True
    """Make a SHA-256 of every file, not only of those that one was given for."""
    fsync: bool = False
    existing: Existing = Existing.FAIL

    def check_length(self, found: int, shown: str = "") -> None:
        """Raise `TransferFailed` where a file has more bytes than it may."""
        if found > self.max_bytes:
            raise TransferFailed(f"has {shown or found} bytes; expected at most {self.max_bytes}")

    def check_free_space(self, directory: Path, wanted: int) -> None:
        """Raise `TransferFailed` where the disk would be too full: sooner than by a write that fails."""
        least = self.min_free_bytes
        if not least and wanted < FREE_SPACE_CHECK_BYTES:
            return
        free = shutil.disk_usage(directory).free
        if free - wanted < least:
            kept = f", and {least} are to stay free" if least else ""
            raise TransferFailed(f"needs {wanted} bytes; the disk has {free}{kept}")


@dataclasses.dataclass(frozen=True)
class TransferOptions:
    """One file that is to be fetched."""

    url: str
    target: Path
    stem: PartialName
    checksums: tuple[Checksum, ...] = ()
    size: int | None = None
    etag: str = ""
    """The entity-tag that a listing gave: the object that is meant, as long as it is there."""
    sign: Signer | None = None
    leftover: LeftoverFile | None = None
    journal: Journal | None = None


@dataclasses.dataclass(frozen=True)
class FetchedFile:
    """A file that is whole."""

    size: int
    sha256: str
    """Hexadecimal; empty where none was wanted."""


class Buffer:
    """One thread's reading space: made when a first body arrives, then used again.

    A mapping, of which only what was written to takes memory: with 200 threads, small files take
    little, and what a thread had is the system's again when it ends.
    """

    def __init__(self) -> None:
        self._bytes: mmap.mmap | None = None

    def view(self) -> memoryview:
        """Return the whole space."""
        if self._bytes is None:
            self._bytes = mmap.mmap(-1, READ_BYTES)
        return memoryview(self._bytes)
