"""What a run is to do, and what it says of it: plain facts, between the database and the threads."""

import dataclasses
from pathlib import Path
from uuid import UUID

from cacheapp.downloads.http.ip_policy import Network
from cacheapp.downloads.http.retry import Retries
from cacheapp.downloads.states import FileState


@dataclasses.dataclass(frozen=True)
class Item:
    """One file to fetch."""

    row: int
    """Its row in the database; the engine only hands it back."""
    position: int
    url: str
    name: str
    """Below the job's directory; `/` separates folders."""
    sha256: str = ""
    size: int | None = None
    etag: str = ""
    """As an object store listed it; empty elsewhere."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run is, in numbers."""

    files_done: int = 0
    files_failed: int = 0
    bytes_done: int = 0
    bytes_total: int | None = None
    """Of all files together, those that failed left out; `None` while one is unknown."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is to do."""

    job: UUID
    directory: Path
    threads: int
    origins: frozenset[str] | None
    items: tuple[Item, ...]
    networks: tuple[Network, ...] = ()
    trusted: frozenset[str] = frozenset()
    token: int = 0
    """The owner's fencing token."""
    more: bool = False
    """Whether `feed` will bring more items, until `no_more`."""
    resumable: bool = False
    """Whether what is on disk may be gone on from, by this run and by one after it; then final
    names are noted."""
    own: bool = False
    """Whether the directory is the job's alone: no file in it is anybody else's."""
    retries: Retries = dataclasses.field(default_factory=Retries)
    max_bytes: int | None = None
    """Of all files together."""
    max_s: float | None = None
    done: Progress = dataclasses.field(default_factory=Progress)
    """What earlier runs have done."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a file."""

    item: Item
    state: FileState
    bytes_done: int = 0
    error: str = ""
    sha256: str = ""
    tries: int = 0
