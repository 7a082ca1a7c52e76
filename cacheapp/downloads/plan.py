"""The vocabulary of a run: what it has to do (`Plan`) and what it reports (`FileReport`).

Frozen values that pass between the database code and the download threads. This module imports
neither.
"""

import dataclasses
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from cacheapp.access_settings import OriginHeaders
from cacheapp.downloads.states import FileState

MAX_TITLE_CHARS = 200
"""Of a job's title."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How often, and after what wait, a failed file is tried again."""

    tries: int = 5
    """Attempts per file without progress, including the first."""
    first_wait_s: float = 0.5
    """Wait after the first failure, before jitter; it doubles with each further failure up to
    `max_wait_s`."""
    max_wait_s: float = 30.0
    max_retry_after_s: float = 300.0
    """A longer `Retry-After` fails the file instead of being waited for."""

    def wait_s(self, tried: int, random_fraction: float) -> float:
        """Return the wait after `tried` attempts without progress; `random_fraction`: from 0 to 1.

        Half of the wait is random, so that files that failed together are not retried together.
        """
        exponent = min(max(tried, 1) - 1, 32)
        return float(min(self.max_wait_s, self.first_wait_s * 2**exponent)) * (
            0.5 + random_fraction / 2
        )

    def retry_in_s(
        self, tried: int, random_fraction: float, retry_after_s: float | None
    ) -> float | None:
        """Return the seconds until the next attempt, or `None` if there is none."""
        if tried >= self.tries or (
            retry_after_s is not None and retry_after_s > self.max_retry_after_s
        ):
            return None
        return max(self.wait_s(tried, random_fraction), retry_after_s or 0.0)


@dataclasses.dataclass(frozen=True)
class Item:
    """One file to fetch."""

    row: int
    """The primary key of its row; the engine passes it through."""
    position: int
    url: str
    name: str
    """Relative to the job's directory; `/` separates folders."""
    checksum: str = ""
    """In the form of `checksums.read_checksum`."""
    size: int | None = None
    etag: str = ""
    """The ETag from an object store's listing; otherwise empty."""


@dataclasses.dataclass(frozen=True)
class JobProgress:
    """The counts of a run."""

    files_done: int = 0
    files_failed: int = 0
    bytes_done: int = 0
    bytes_total: int | None = None
    """Total size of all files except failed ones; `None` while the size of one is unknown."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run has to do."""

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
    """Whether more items will be passed to `JobRun.feed`, until `finish_feeding` is called."""
    headers: tuple[OriginHeaders, ...] = dataclasses.field(default=(), repr=False)
    """Headers that authenticate requests to origins."""
    logins: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False, hash=False)
    """Values of `Authorization` by host."""
    proxied: bool = False
    """Whether requests go through the proxies that the environment names."""
    resumable: bool = False
    """Whether this run and later ones may resume from the files on disk; if so, published names are
    recorded in the journal."""
    own: bool = False
    """Whether the directory belongs to this job alone."""
    parts: int = 8
    """The number of connections for one large file."""
    retries: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    max_bytes: int | None = None
    """Limit for all files together."""
    max_s: float | None = None
    max_rate: int | None = None
    """Limit for all files together, in bytes per second."""
    done: JobProgress = dataclasses.field(default_factory=JobProgress)
    """The counts of earlier runs."""


@dataclasses.dataclass(frozen=True)
class FileReport:
    """The state of a file, and its result if it has ended."""

    item: Item
    state: FileState
    bytes_done: int = 0
    error: str = ""
    sha256: str = ""
    tries: int = 0
