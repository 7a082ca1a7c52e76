"""`NearCache`: the backend class that `CACHES` names, and its options."""

import contextlib
import contextvars
import hashlib
import os
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from django.core.cache.backends.base import BaseCache, default_key_func

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.async_methods import in_thread
from cacheapp.backends.core.counters import (
    COMMON_NAMES,
    COPY_ABSENT,
    COPY_EXCLUDED,
    COPY_FILLS,
    COPY_HITS,
    COPY_NAMES,
    COPY_UNPROVED,
    COPY_VOIDED_FILLS,
    HITS,
    MISSES,
)
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.options import Option
from cacheapp.backends.core.patterns import glob_to_regex
from cacheapp.backends.core.store import registry
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.limits import MIN_SIZE_LIMIT
from cacheapp.backends.lmdb.plain_names import (
    COPIED_BELOW,
    MAX_NAME_BYTES,
    PlainNames,
    is_plain_text,
)
from cacheapp.backends.lmdb.records import FORMAT, PLAIN
from cacheapp.backends.local.shared_directory import resolve_location
from cacheapp.backends.near import records
from cacheapp.backends.near.cluster_store import NearClusterStore
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.records import Copied, Fill, Row, State
from cacheapp.backends.near.store import NearStore
from cacheapp.backends.redis.cache import (
    RedisCache,
    cluster_store_arguments,
    hashable,
    store_arguments,
)
from cacheapp.backends.redis.cluster.keys import tagged_key
from cacheapp.backends.redis.encoding import decode_payload, encode_key, encode_payload
from cacheapp.backends.redis.on_error import apply_error_policy, fall_back_as, follows_on_error
from cacheapp.backends.redis.options import OPTIONS
from cacheapp.errors import CacheappError
from cacheapp.typed_values import none_or, seconds, whole_number

_NONE: Final = object()
_LEAST_STALENESS_S = 0.05
_PLAIN_ENTRY = FORMAT | PLAIN << 8
_VERIFIED = records.VERIFIED[0]
_always_fresh: contextvars.ContextVar[bool] = contextvars.ContextVar("near_fresh", default=False)


def _path(value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise ValueError("the path of a directory on this machine")
    return os.fspath(value)


def _staleness(value: Any) -> float:
    found = seconds(value)
    if found < _LEAST_STALENESS_S:
        raise ValueError(f"at least {_LEAST_STALENESS_S} seconds")
    return found


def _globs(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError("a list of patterns such as ['session:*']")
    return list(value)


_COPY_OPTIONS: Mapping[str, Option] = {
    "copy": Option(_path, None),
    "max_staleness": Option(_staleness, 1.0),
    "size_limit": Option(whole_number(MIN_SIZE_LIMIT), 128 * 2**20),
    "copy_max_bytes": Option(none_or(whole_number(0)), 2**20),
    "copy_exclude": Option(_globs, []),
}


@apply_error_policy
class NearCache(PlainNames, RedisCache):
    """A `RedisCache` whose `get`, `get_many` and `has_key` are served from a copy on this machine.

    All other methods, and `get_or_set`, are those of `RedisCache`. A value that was overwritten,
    deleted or expired more than `max_staleness` seconds before a read began is never returned. If
    that cannot be shown, the read goes to Redis.

    `OPTIONS["copy"]` is a directory, with the same rules as the LOCATION of an `LMDBCache`: all
    workers of this machine share it.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {**OPTIONS, **_COPY_OPTIONS}
    COUNTERS: ClassVar[Sequence[str]] = (*COMMON_NAMES, *COPY_NAMES)
    _store: NearStore

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        self._load_plain, self._header = self._codec.loads, self._codec.header
        self._body_at = records.PLAIN_BODY_AT + self._codec.body_at
        self._copy_max_bytes: int | None = self.options["copy_max_bytes"]

    def _source_of_names(self) -> tuple[Environment, bytes]:
        self._excluded = [glob_to_regex(each).fullmatch for each in self.options["copy_exclude"]]
        self._tracked = self._prefix_of_keys()  # and of no key that a later change of names makes
        store: Any = self._store
        if not isinstance(store, NearStore):  # then each use raises the mistakes in CACHES
            self._copy: LocalCopy = store
            return store, b""
        self._copy = store.copy
        return store.copy.environment, store.copy.keys.prefix

    def _prepare_names(self) -> None:
        self._end = b""
        super()._prepare_names()
        standard = type(self).make_key is BaseCache.make_key
        if (
            self.key_func is tagged_key
            and standard
            and is_plain_text(f"{self.key_prefix}{self.version}")
        ):
            # The names of a cluster, which end with their hash tag.
            head, _, end = tagged_key("\n", self.key_prefix, self.version).partition("\n")
            self._head, self._end = self._namespace + head.encode(), end.encode()
        # The fast path looks neither at the patterns nor at what Redis tracks.
        if self._excluded or not f"{self.key_prefix}:".startswith(self._tracked):
            self._head = b""

    @classmethod
    def mistakes(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each mistake in an entry of `CACHES`; none contains a password."""
        found = super().mistakes(location, params)
        options = params.get("OPTIONS", {})
        if isinstance(options, Mapping) and "copy" not in options:
            found.append(
                "OPTIONS['copy'] is missing; expected the path of a directory on this machine"
            )
        return found

    def _shared_store(self) -> NearStore:
        options = self.options
        settings = hashable(self.params.get("OPTIONS", {}))
        prefix = self._prefix_of_keys()
        on_cluster, nodes = self._is_on_cluster(), self._nodes()
        path = resolve_location(Path(options["copy"])) / _name_of(",".join(nodes), prefix, options)
        kind, build = (
            (NearClusterStore, cluster_store_arguments)
            if on_cluster
            else (NearStore, store_arguments)
        )
        store: NearStore = registry.get_or_create(
            (kind, path, nodes, settings, prefix),
            lambda: kind(
                *build(nodes, options),
                copy=LocalCopy(
                    path,
                    options["size_limit"],
                    options["max_staleness"],
                    has_owners=on_cluster,
                ),
                prefix=encode_key(prefix),
                write_s=options["SOCKET_TIMEOUT"] + options["pool_timeout"],
                timeout_s=max(options["SOCKET_TIMEOUT"], options["SOCKET_CONNECT_TIMEOUT"]),
            ),
        )
        store.counters.add(self._counters)
        return store

    def _prefix_of_keys(self) -> str:
        """Return what all keys of this alias begin with: Redis names no other keys that change."""
        own = self.key_func in (default_key_func, tagged_key)
        return f"{self.key_prefix}:" if own else ""

    # -- reads from the copy ---------------------------------------------------------------------

    @follows_on_error
    def get(
        self, key: Any, default: Any = None, version: int | None = None, *, fresh: bool = False
    ) -> Any:
        """Return the value, or `default`. With `fresh`, read from Redis."""
        fill: Fill | None = None
        if version is None and type(key) is str and not fresh:
            value = self._copied_plainly(key)
            if type(value) is Fill:
                fill = value
            elif value is not _NONE:
                return value
        return self._get_otherwise(key, default, version, fresh=fresh, fill=fill)

    @fall_back_as("get")
    def _get_otherwise(
        self, key: Any, default: Any, version: int | None, *, fresh: bool, fill: Fill | None
    ) -> Any:
        """Return the value if it is not in the copy in the common case; `fill` as it was begun there."""
        final = self.make_and_validate_key(key, version=version)
        if self._is_read_fresh(fresh):
            value = self._value_of(final, self._store.get(final))
        else:
            reason = COPY_ABSENT
            if fill is None:
                value, reason = self._copied(final, key)
            self._count(reason)
            if reason == COPY_ABSENT:
                value = self._fill_one(final, fill)
            elif reason != COPY_HITS:
                value = self._value_of(final, self._store.get(final))
        if value is self._missing_key:
            self._count(MISSES)
            return default
        self._count(HITS)
        return value

    def _copied_plainly(self, key: str) -> Any:  # noqa: C901, PLR0911 (the path of every hit)
        """Return the value in the copy in the common case, counted as a hit; else `_NONE`.

        If the copy may be served and has no entry, begin to fill it, as `LocalCopy.begin_fill` does.
        """
        head = self._head
        if not (head and key.isprintable() and " " not in key) or _always_fresh.get():
            return _NONE
        name = head + key.encode() + self._end
        env, now = self._environment.current, clock.boot_s()
        try:
            state, raw = self._environment.get_with_meta(records.STATE_KEY, name, now)
            if state is None or len(name) > MAX_NAME_BYTES:
                return _NONE
            epoch, confirmed_until = records.unpack_proof(state)
            if raw is None:
                if env is None or not now < confirmed_until > self._copy.trusted_after:
                    return _NONE
                fill = Fill(env, epoch, {name: env.reference_bits.changes(name)})
                # It is the environment of the snapshot, unless another one has replaced it.
                return fill if env is self._environment.current else _NONE
            kind, deadline, number, tag, entry_epoch, first = records.unpack_plain(raw)
        except CacheappError as exc:
            self._copy.failed(exc)
            return _NONE
        except struct.error:  # too short: an entry that is no value
            return _NONE
        if not (
            tag == _VERIFIED
            and first == self._header
            and kind == _PLAIN_ENTRY
            and entry_epoch == epoch
            and now < deadline
            and now < confirmed_until > self._copy.trusted_after
        ):
            return _NONE
        at = self._body_at
        body = raw[at:] if len(raw) < COPIED_BELOW else memoryview(raw)[at:]
        try:  # `_load` in place
            value = self._load_plain(body)
        except Exception as exc:
            if self._codec.reason_to_reject(memoryview(body), exc) is None:
                raise
            return _NONE
        reference_bits = self._environment.reference_bits
        slot = number & reference_bits.mask
        if not reference_bits.bits[slot]:
            reference_bits.bits[slot] = 1
        row = self._counters.row
        row[HITS] += 1
        row[COPY_HITS] += 1
        return value

    async def aget(
        self, key: Any, default: Any = None, version: int | None = None, *, fresh: bool = False
    ) -> Any:
        """Async twin of `get`; a value in the copy is read in the thread of the event loop."""
        if not self._is_read_fresh(fresh):
            final = self.make_and_validate_key(key, version=version)
            # If the copy lacks it, `get` looks again, and counts why.
            value, reason = self._copied(final, key)
            if reason == COPY_HITS:
                self._count(reason)
                self._count(MISSES if value is self._missing_key else HITS)
                return default if value is self._missing_key else value
        return await in_thread(self.get, key, default, version, fresh=fresh)

    def _copied(self, final: str, key: Any) -> tuple[Any, int]:
        """Return the value in the copy, or `_missing_key` if Redis has none; and how to count it.

        If it is not counted as a hit of the copy, the value is `_NONE`: unknown.
        """
        if self._is_excluded(key, final):
            return _NONE, COPY_EXCLUDED
        state, (copied,) = self._copy.find([self._copy.encode(final)])
        now = clock.boot_s()
        self._store.invalidations.ensure(state, now)
        return self._value_of_copy(final, copied, state, now)

    def _value_of_copy(
        self, final: str, copied: Copied, state: State, now: float
    ) -> tuple[Any, int]:
        """Return the value, or `_NONE`, and the counter of this outcome."""
        if not self._copy.is_proved(state, now):
            return _NONE, COPY_UNPROVED
        if not copied.tag or copied.epoch != state.epoch or copied.deadline <= now:
            return _NONE, COPY_ABSENT
        value = self._missing_key
        if copied.tag == records.VERIFIED and copied.body[0] == self._header:
            value = self._load(memoryview(copied.body)[self._codec.body_at :])
        elif copied.tag != records.MISSING:  # also one that an alias with other options verified
            value = self._decode(final, decode_payload(copied.body), self._missing_key)
        return value, COPY_ABSENT if value is _NONE else COPY_HITS

    def _load(self, body: Any) -> Any:
        """Return the value of a body, or `_NONE` if its class no longer exists."""
        try:
            return self._load_plain(body)
        except Exception as exc:
            if self._codec.reason_to_reject(memoryview(body), exc) is None:
                raise
            return _NONE

    @staticmethod
    def _is_read_fresh(fresh: bool) -> bool:  # noqa: FBT001 (as it was given)
        return fresh or _always_fresh.get()

    def _is_excluded(self, key: Any, final: str) -> bool:
        """Return True if the key is kept out of the copy: by an option, or as Redis does not track it."""
        return not final.startswith(self._tracked) or any(
            matches(str(key)) for matches in self._excluded
        )

    # -- reads through to Redis ------------------------------------------------------------------

    def _fill_one(self, final: str, fill: Fill | None) -> Any:
        """Return what Redis has, or `_missing_key`; copy it unless it may have changed since."""
        encoded = self._copy.encode(final)
        if fill is None:
            fill = self._copy.begin_fill([encoded])
        now = clock.boot_s()  # before the TTL is read: the copy never outlives the entry
        payload, ttl, origin = self._store.fetch_one(final)
        if origin is not None and fill and not self._store.is_of_owner(fill, final, origin):
            fill = None
        value, tag, body = self._prepare_copy(final, payload)
        row = Row(encoded, tag, body, None if ttl is None else now + ttl)
        stored = self._copy.end_fill_of_one(fill, row)
        self._count(COPY_FILLS if stored else COPY_VOIDED_FILLS)
        return value

    def _read_through(self, finals: Iterable[str], filled: Collection[str]) -> dict[str, Any]:
        """Return what Redis has, all of one moment, or `_missing_key`; copy the keys in `filled`."""
        unique = list(dict.fromkeys(finals))
        if filled:
            return self._fill_many(unique, dict.fromkeys(filled))
        payloads = self._store.get_many(unique) if unique else {}
        return {final: self._value_of(final, payloads.get(final)) for final in unique}

    def _fill_many(self, finals: Sequence[str], filled: Collection[str]) -> dict[str, Any]:
        """Read the keys, and copy those of `filled`, unless they may have changed since."""
        names = {final: self._copy.encode(final) for final in finals}
        fill = self._copy.begin_fill([names[final] for final in filled])
        now = clock.boot_s()
        found = dict(zip(finals, self._store.fetch(finals), strict=True))
        values: dict[str, Any] = {}
        rows: list[Row] = []
        unproved: list[Row] = []
        for final, (payload, ttl, origin) in found.items():
            values[final], tag, body = self._prepare_copy(final, payload)
            if final in filled:
                row = Row(names[final], tag, body, None if ttl is None else now + ttl)
                proved = origin is None or (
                    fill is not None and self._store.is_of_owner(fill, final, origin)
                )
                (rows if proved else unproved).append(row)
        stored = self._copy.end_fill(fill, rows) + self._copy.end_fill(None, unproved)
        self._count(COPY_FILLS, stored)
        self._count(COPY_VOIDED_FILLS, len(filled) - stored)
        self._store.forget_others({it: found[it][0] for it in finals if it not in filled})
        return values

    def _prepare_copy(self, final: str, payload: Payload | None) -> tuple[Any, bytes, bytes]:
        """Return the value, and tag and body for the copy; an empty tag means that it is not copied."""
        if payload is None or lease_format.is_lease(payload):
            return self._missing_key, records.MISSING, b""
        stored = encode_payload(payload)
        value = self._decode(final, payload, self._missing_key)
        tag = records.PAYLOAD
        if type(payload) is bytes and payload[:1] < b"\xb0":  # without a soft deadline
            if value is self._missing_key:
                return value, b"", b""  # it was rejected, and removed
            if not self._codec.is_compressed(payload):
                tag = records.VERIFIED
        if self._copy_max_bytes is not None and len(stored) > self._copy_max_bytes:
            tag = b""
        return value, tag, stored

    def get_many(
        self, keys: Iterable[Any], version: int | None = None, *, fresh: bool = False
    ) -> dict[Any, Any]:
        """Return a dict of the keys that exist. With `fresh`, read from Redis.

        If the copy lacks one of them, all are read from Redis in one step, and so are of one moment.
        Those that `copy_exclude` keeps out of the copy are read from Redis on their own.
        """
        finals = {key: self.make_and_validate_key(key, version=version) for key in keys}
        values: dict[str, Any] = {}
        if self._is_read_fresh(fresh):
            values = self._read_through(finals.values(), ())
        elif finals:
            excluded = {final for key, final in finals.items() if self._is_excluded(key, final)}
            wanted = [final for final in finals.values() if final not in excluded]
            self._count(COPY_EXCLUDED, len(finals) - len(wanted))
            values, absent, filled = self._copied_many(wanted)
            values |= self._read_through([*(wanted if absent else ()), *excluded], filled)
        found = {
            key: values[final]
            for key, final in finals.items()
            if values[final] is not self._missing_key
        }
        self._count(HITS, len(found))
        self._count(MISSES, len(finals) - len(found))
        return found

    def _copied_many(
        self, finals: Sequence[str]
    ) -> tuple[dict[str, Any], Sequence[str], Sequence[str]]:
        """Return what the copy has, all of one snapshot; what it lacks; and what it may copy of that."""
        state, entries = self._copy.find([self._copy.encode(final) for final in finals])
        now = clock.boot_s()
        self._store.invalidations.ensure(state, now)
        found, absent = {}, []
        for final, copied in zip(finals, entries, strict=True):
            value, reason = self._value_of_copy(final, copied, state, now)
            self._count(reason)
            if reason == COPY_HITS:
                found[final] = value
            else:
                absent.append(final)
        return found, absent, absent if self._copy.is_proved(state, now) else ()

    def has_key(self, key: Any, version: int | None = None, *, fresh: bool = False) -> bool:
        """Return True if the key exists and has not expired. With `fresh`, read from Redis."""
        if not self._is_read_fresh(fresh):
            final = self.make_and_validate_key(key, version=version)
            value, reason = self._copied(final, key)
            self._count(reason)
            if reason == COPY_HITS:
                return value is not self._missing_key
        return super().has_key(key, version)

    @contextlib.contextmanager
    def fresh(self) -> Iterator[None]:
        """Read from Redis in the block, in this thread or task, through every `NearCache`."""
        token = _always_fresh.set(True)
        try:
            yield
        finally:
            _always_fresh.reset(token)

    def tracking_refusal(self) -> str:
        """Return why Redis does not send what changes to this user; empty if it does, or is down."""
        return self._store.invalidations.refusal()

    def stats(self) -> dict[str, int]:
        """Return the counters of this alias, and what its copy contains."""
        return {**super().stats(), **self._copy.figures()}


_FORMAT = "counters"
"""What the files of a copy contain, so that two releases with different files do not share a directory."""


def _name_of(url: str, prefix: str, options: Mapping[str, Any]) -> str:
    """Return the directory of a copy; aliases of the same keys and the same bound share it."""
    text = "\0".join([_FORMAT, url, prefix, str(options["max_staleness"])])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
