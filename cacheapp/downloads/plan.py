"""What a run is to do, and what it says of it: plain facts, between the database and the threads."""

import dataclasses
import ipaddress
from pathlib import Path
from uuid import UUID

from cacheapp.downloads.states import FileState

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How often, and how soon, a file is tried again."""

    tries: int = 5
    """In all, for one file."""
    first_wait_s: float = 0.5
    """About how long after the first failure; each further wait is twice as long, up to `max_wait_s`."""
    max_wait_s: float = 30.0
    max_retry_after_s: float = 300.0
    """`Retry-After` is honoured up to this; a host that wants longer is not worth waiting for."""

    def wait_s(self, tried: int, random_fraction: float) -> float:
        """Return how long to wait after `tried` tries; `random_fraction` is a random number from 0 to 1.

        Half of it is left to chance, so that files that failed together do not come back together.
        """
        exponent = min(tried - 1, 32)
        return float(min(self.max_wait_s, self.first_wait_s * 2**exponent)) * (
            0.5 + random_fraction / 2
        )

    def retry_in_s(
        self, tried: int, random_fraction: float, retry_after_s: float | None
    ) -> float | None:
        """Return the seconds until the next try; `None` if there is none."""
        if tried >= self.tries or (
            retry_after_s is not None and retry_after_s > self.max_retry_after_s
        ):
            return None
        return max(self.wait_s(tried, random_fraction), retry_after_s or 0.0)


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
class JobProgress:
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
    """Whether `feed` will bring more items, until `finish_feeding`."""
    resumable: bool = False
    """Whether what is on disk may be gone on from, by this run and by one after it; then final
    names are noted."""
    own: bool = False
    """Whether the directory is the job's alone: no file in it is anybody else's."""
    retries: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    max_bytes: int | None = None
    """Of all files together."""
    max_s: float | None = None
    done: JobProgress = dataclasses.field(default_factory=JobProgress)
    """What earlier runs have done."""


@dataclasses.dataclass(frozen=True)
class FileReport:
    """What became of a file."""

    item: Item
    state: FileState
    bytes_done: int = 0
    error: str = ""
    sha256: str = ""
    tries: int = 0
