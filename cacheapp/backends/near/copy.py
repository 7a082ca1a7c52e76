"""The copy of a Redis database on this machine: an LMDB environment that all workers share."""

import atexit
import contextlib
import logging
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from cacheapp import clock
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.core.store import registry
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.key_encoding import EncodedKey, KeyEncoder
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.open_environment import OpenEnvironment
from cacheapp.backends.lmdb.write_retry import WriteRetry
from cacheapp.backends.near import records
from cacheapp.backends.near.records import Copied, Fill, NotOwner, Row, State
from cacheapp.backends.redis.encoding import decode_key
from cacheapp.backends.redis.executor import is_of_handler
from cacheapp.errors import CacheappError, OptionsRefused, StoreFull

logger = logging.getLogger(__name__)
_failures = LogThrottle()
_TIMEOUT_S = 5.0  # for the lock of the directory
_EXIT_WITHIN_S = 1.0  # at the end of the process, for threads that are inside
_FORGET_BATCH = 500
_ATTEMPTS = 3  # to begin a fill
# For the record of owners, of which old versions stay until no reader needs them.
_OWNERS_BYTES = 2**19
_MAX_OWNERS_BYTES = _OWNERS_BYTES // 6
ResultT = TypeVar("ResultT")


class LocalCopy:
    """What this machine has copied from one Redis, for all threads of this process.

    No method raises because the copy fails: then reads find nothing, fills store nothing, and this
    process trusts the copy again only after a confirmation that began later (`trusted_after`).
    """

    def __init__(
        self, path: Path, size_limit: int, max_staleness: float, *, has_owners: bool = False
    ) -> None:
        self.max_staleness = max_staleness
        record_bytes = _OWNERS_BYTES if has_owners else 0
        limits = SizeLimits(size_limit, None, counts_changes=True, record_bytes=record_bytes)
        self.environment = registry.get_or_create(
            ("near", path), lambda: Environment(path, limits, _TIMEOUT_S)
        )
        if self.environment.limits != limits:
            raise OptionsRefused(
                f"{path}: one copy has one size_limit; found {self.environment.limits.size_limit} "
                f"in use, and {size_limit} for this cache; nothing was done"
            )
        self.keys = KeyEncoder("", "")
        self._retry = WriteRetry(self.environment)
        self.trusted_after = 0.0
        """Entries are served while `confirmed_until` is later than this."""
        atexit.register(_close, weakref.ref(self))

    def encode(self, key: str) -> EncodedKey:
        """Return how the copy names a final key."""
        return self.keys.encode(key)

    # -- readers -----------------------------------------------------------------------------

    def find(self, keys: Sequence[EncodedKey]) -> tuple[State, list[Copied]]:
        """Return the state and what the copy has of the keys, from one snapshot."""
        try:
            return self.environment.read(records.find, keys)
        except CacheappError as exc:
            self.failed(exc)
            return records.NO_STATE, [records.ABSENT] * len(keys)

    def figures(self) -> dict[str, int]:
        """Return what the copy contains; zeros while it cannot be read."""
        return self._try(self.environment.read, records.figures) or records.NO_FIGURES

    def owners(self) -> tuple[OpenEnvironment | None, int, bytes]:
        """Return environment, epoch, and which node of a cluster has which slots in it; empty if unknown."""
        return self._try(self.environment.read, records.owners) or (None, 0, b"")

    def is_proved(self, state: State, now: float) -> bool:
        """Return True if entries of the state's epoch are at most `max_staleness` seconds old."""
        return now < state.confirmed_until > self.trusted_after

    def begin_fill(self, keys: Sequence[EncodedKey]) -> Fill | None:
        """Begin a fill before the keys are read from Redis; `None` if that failed.

        Afterwards no key has an entry that is older than what the caller is about to read.
        """
        read, old = self.environment.read, None
        try:
            for _ in range(_ATTEMPTS):
                fill, old = read(records.begin_fill, keys)
                if not old:
                    return fill
                self._retry.shrink(records.forget, old)
        except CacheappError as exc:
            self.failed(exc)
        return None  # others fill the same keys at the same time

    def end_fill(self, fill: Fill | None, rows: Sequence[Row]) -> int:
        """Store what was read, unless it may have changed since; return how many rows are stored.

        Whether or not they are, nothing else is there, and no fill in progress stores what it read
        earlier. A value that is too large for the copy is not stored.
        """
        stored = 0
        for part, length in _batches(rows, self.environment.max_entry_bytes):
            try:
                stored += self._retry.grow(length, records.end_fill, part, fill)
            except StoreFull:
                self._forget([row.encoded[0] for row in part])
            except CacheappError as exc:
                self.failed(exc)
        return stored

    def end_fill_of_one(self, fill: Fill | None, row: Row) -> bool:
        """Store one row as `end_fill` does."""
        length = len(row.body)
        if row.tag and length <= self.environment.max_entry_bytes:
            try:
                return self._retry.grow_once(length, records.end_fill_of_one, (row, fill))
            except StoreFull:
                pass
            except CacheappError as exc:
                self.failed(exc)
                return False
        return self.end_fill(fill, [row]) > 0

    def begin_move(self, keys: Sequence[str], within_s: float) -> float:
        """Have the keys read from Redis until `end_move`; return when that ends at the latest."""
        names = [self.keys.name(key) for key in keys]
        length = 64 * len(names)
        return self._try(self._retry.grow, length, records.begin_move, names, within_s) or 0.0

    def end_move(self, keys: Sequence[str], until: float) -> None:
        """Remove what the copy has of the keys, and let it have them again."""
        names = [self.keys.name(key) for key in keys]
        self._try(self._retry.shrink, records.end_move, names, until)

    def forget(self, keys: Iterable[str]) -> None:
        """Remove what the copy has of the keys, and void their fills, so that no older value is read."""
        self._forget([self.keys.name(key) for key in keys])

    def forget_one(self, key: str) -> None:
        """Remove what the copy has of a key as `forget` does."""
        self._try(self._retry.shrink_once, records.forget_one, self.keys.name(key))

    def _forget(self, names: Sequence[bytes]) -> None:
        for start in range(0, len(names), _FORGET_BATCH):
            self._try(self._retry.shrink, records.forget, names[start : start + _FORGET_BATCH])

    def clear(self) -> None:
        """Serve nothing that was fetched before, in any process."""
        self._try(self._retry.shrink, records.next_epoch)

    # -- the listener ------------------------------------------------------------------------

    def claim(self, within_s: float) -> bytes | None:
        """Become the listener of this machine; return the owner's token, or `None`."""
        owner = secrets.token_bytes(16)
        return owner if self._try(self._retry.shrink, records.claim, owner, within_s) else None

    def renew(self, owner: bytes, within_s: float) -> None:
        """Stay the listener for so long; raise `NotOwner` if another process is, or as `begin_epoch` does."""
        self._retry.shrink(records.renew, owner, within_s)

    def begin_epoch(self, owner: bytes, owners: bytes = b"") -> None:
        """Begin a new epoch; raise `NotOwner`, or `CacheappError` if the copy cannot be written.

        Invariant: the record of owners takes no page of the entries, nor of those that each write needs. A small
        copy would be emptied otherwise, whenever it is full and an epoch begins.
        """
        if len(owners) > _MAX_OWNERS_BYTES:
            raise StoreFull(
                f"{self.environment.directory.path}: the record of which node has which slots has "
                f"{len(owners)} bytes, and {_MAX_OWNERS_BYTES} fit; nothing is copied"
            )
        self._retry.shrink(records.begin_epoch, owner, owners)

    def apply(
        self,
        owner: bytes,
        keys: Iterable[bytes],
        *,
        flushed: bool = False,
        confirmed: tuple[float, float] | None = None,
    ) -> int:
        """Remove what was invalidated, then confirm; raise as `begin_epoch` does.

        Return how many entries were removed.
        """
        names = [name for key in keys if (name := self._name_of(key)) is not None]
        found: list[bytes] = []
        if names:  # most of them have no entry here, and are looked up without the lock of writers
            self._retry.shrink(records.void_fills, owner, names)
            found = self.environment.read(records.present, names)
        if found or flushed or confirmed is not None:
            self._retry.shrink(records.apply, owner, found, flushed, confirmed)
        return len(found)

    def _name_of(self, key: bytes) -> bytes | None:
        """Return the name of a key that Redis sent; `None` if no cache has such keys."""
        try:
            return self.keys.name(decode_key(key))
        except UnicodeDecodeError:  # another application's
            return None

    def release(self, owner: bytes, retry_in_s: float = 0.0) -> None:
        """Let another process become the listener, after `retry_in_s` seconds."""
        with contextlib.suppress(NotOwner):
            self._try(self._retry.shrink, records.release, owner, clock.boot_s() + retry_in_s)

    # -- the process -------------------------------------------------------------------------

    def _try(self, operation: Callable[..., ResultT], *args: object) -> ResultT | None:
        try:
            return operation(*args)
        except CacheappError as exc:
            self.failed(exc)
            return None

    def failed(self, error: CacheappError) -> None:
        """Serve nothing in this process until a confirmation that began after this moment.

        What a signal handler raised is raised again: it is no failure of the copy.
        """
        if is_of_handler(error):
            raise error
        self.trusted_after = clock.boot_s() + self.max_staleness
        if (withheld := _failures.due()) is not None:
            logger.warning(
                "%s: the copy failed, and Redis is used instead (%s; %d more since the last such line)",
                self.environment.directory.path,
                error,
                withheld,
                extra={"event": "near_copy_failed"},
            )

    def end_request(self) -> None:
        """Check the files before their next use."""
        self.environment.end_request()

    def close(self) -> None:
        """Close the files."""
        self.environment.close()


def _batches(rows: Sequence[Row], max_bytes: int) -> Iterator[tuple[list[Row], int]]:
    """Yield batches of rows with their size, at most `max_bytes`; a larger body is not stored."""
    part: list[Row] = []
    size = 0
    for row in rows:
        fits = bool(row.tag) and len(row.body) <= max_bytes
        kept = row if fits else row._replace(tag=b"", body=b"")
        if part and size + len(kept.body) > max_bytes:
            yield part, size
            part, size = [], 0
        part.append(kept)
        size += len(kept.body)
    if part:
        yield part, size


def _close(copy: "weakref.ref[LocalCopy]") -> None:
    if found := copy():
        found.environment.close_at_exit(_EXIT_WITHIN_S)
