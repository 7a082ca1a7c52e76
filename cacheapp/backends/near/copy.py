"""The copy of a Redis database on this machine: an LMDB environment that all workers share."""

import atexit
import contextlib
import itertools
import logging
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from cacheapp import clock
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.core.store import registry
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.key_encoding import EncodedKey, KeyEncoder
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.lmdb.write_retry import WriteRetry
from cacheapp.backends.near import records
from cacheapp.backends.near.records import Copied, NotOwner, State
from cacheapp.backends.redis.encoding import decode_key
from cacheapp.errors import CacheappError, OptionsRefused, StoreFull

logger = logging.getLogger(__name__)
_failures = LogThrottle()
_TIMEOUT_S = 5.0  # for the lock of the directory
_EXIT_WITHIN_S = 1.0  # at the end of the process, for threads that are inside
_FORGET_BATCH = 500
ResultT = TypeVar("ResultT")


class LocalCopy:
    """What this machine has copied from one Redis, for all threads of this process.

    No method raises because the copy fails: then reads find nothing, fills store nothing, and this
    process trusts the copy again only after a confirmation that began later (`trusted_after`).
    """

    def __init__(self, path: Path, size_limit: int, max_staleness: float) -> None:
        self.max_staleness = max_staleness
        limits = SizeLimits(size_limit, None)
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
        self._process, self._numbers = secrets.token_bytes(8), itertools.count()
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

    def is_proved(self, state: State, now: float) -> bool:
        """Return True if entries of the state's epoch are at most `max_staleness` seconds old."""
        return now < state.confirmed_until > self.trusted_after

    def _new_token(self) -> bytes:
        """Return a token that is unique on this machine.

        Not by a generator: it would end with the exception of a signal handler, and it refuses a
        second thread.
        """
        return self._process + next(self._numbers).to_bytes(8, "little")

    def begin_fill(self, keys: Sequence[EncodedKey], lease_s: float) -> "Fill | None":
        """Take the leases of the keys before they are read from Redis; `None` if that failed."""
        token = self._new_token()
        length = 64 * len(keys)
        try:
            found = self._retry.grow(length, records.begin_fill, keys, token, lease_s)
        except StoreFull:  # what is older than the read that follows must go all the same
            self._forget([name for name, _ in keys])
            return None
        except CacheappError as exc:
            self.failed(exc)
            return None
        return Fill(token, *found)

    def end_fill(
        self,
        fill: "Fill",
        rows: Sequence[tuple[EncodedKey, bytes, bytes, float | None]],
    ) -> int:
        """Store what was read under the leases that are still there; return how many there were.

        A value that is too large for the copy is not stored.
        """
        stored = 0
        for part, length in _batches(rows, self.environment.max_entry_bytes):
            try:
                stored += self._retry.grow(length, records.end_fill, part, fill.token, fill.epoch)
            except StoreFull:  # nothing older is in the copy: the leases are, and expire
                break
            except CacheappError as exc:
                self.failed(exc)
                break
        return stored

    def block(self, keys: Sequence[str], lease_s: float) -> None:
        """Have the keys read from Redis until they are forgotten, or for `lease_s` seconds."""
        names = [self.keys.encode(key) for key in keys]
        length = 64 * len(names)
        self._try(self._retry.grow, length, records.block, names, lease_s)

    def forget(self, keys: Iterable[str]) -> None:
        """Remove what the copy has of the keys, leases too, so that no older value is read."""
        self._forget([self.keys.name(key) for key in keys])

    def _forget(self, names: Sequence[bytes]) -> None:
        for start in range(0, len(names), _FORGET_BATCH):
            part = names[start : start + _FORGET_BATCH]
            # A fill that begins after this look reads from Redis after the write that was its cause.
            if found := self._try(self.environment.read, records.present, part):
                self._try(self._retry.shrink, records.forget, found)

    def clear(self) -> None:
        """Serve nothing that was fetched before, in any process."""
        self._try(self._retry.shrink, records.next_epoch)

    # -- the listener ------------------------------------------------------------------------

    def claim(self, within_s: float) -> bytes | None:
        """Become the listener of this machine; return the owner's token, or `None`."""
        owner = secrets.token_bytes(16)
        return owner if self._try(self._retry.shrink, records.claim, owner, within_s) else None

    def begin_epoch(self, owner: bytes) -> None:
        """Begin a new epoch; raise `NotOwner`, or `CacheappError` if the copy cannot be written."""
        self._retry.shrink(records.begin_epoch, owner)

    def apply(
        self,
        owner: bytes,
        keys: Iterable[bytes],
        *,
        flushed: bool = False,
        confirmed: tuple[float, float] | None = None,
    ) -> int:
        """Remove what was invalidated, then confirm; raise as `begin_epoch` does.

        Return how many entries and leases were removed.
        """
        names = [name for key in keys if (name := self._name_of(key)) is not None]
        found = self.environment.read(records.present, names) if names else []
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
        """Serve nothing in this process until a confirmation that began after this moment."""
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

    def after_fork_in_child(self) -> None:
        """Use other tokens than the parent."""
        self._process, self._numbers = secrets.token_bytes(8), itertools.count()


class Fill:
    """A fill in progress: its token, its epoch, and for each key whether it holds the lease."""

    __slots__ = ("epoch", "taken", "token")

    def __init__(self, token: bytes, epoch: int, taken: list[bool]) -> None:
        self.token = token
        self.epoch = epoch
        self.taken = taken


_Row: TypeAlias = tuple[EncodedKey, bytes, bytes, float | None]


def _batches(rows: Sequence[_Row], max_bytes: int) -> Iterator[tuple[list[_Row], int]]:
    """Yield batches of rows with their size, at most `max_bytes`; a larger body becomes an empty tag."""
    part: list[_Row] = []
    size = 0
    for encoded, tag, body, deadline in rows:
        fits = bool(tag) and len(body) <= max_bytes
        row = (encoded, tag, body, deadline) if fits else (encoded, b"", b"", deadline)
        if part and size + len(row[2]) > max_bytes:
            yield part, size
            part, size = [], 0
        part.append(row)
        size += len(row[2])
    if part:
        yield part, size


def _close(copy: "weakref.ref[LocalCopy]") -> None:
    if found := copy():
        found.environment.close_at_exit(_EXIT_WITHIN_S)
