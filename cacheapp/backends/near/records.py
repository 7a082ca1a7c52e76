"""What the copy stores, as the work of single LMDB transactions.

An entry of the copy is a tag, the epoch in which it was fetched, and what Redis returned. The *state*
is one record of the environment's own: it is read in the same snapshot as the entry, so a reader
never combines an entry with the state of another moment.
"""

import os
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from cacheapp.backends.lmdb.entries import put
from cacheapp.backends.lmdb.eviction import used_bytes
from cacheapp.backends.lmdb.key_encoding import EncodedKey
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.records import (
    DEADLINE,
    HEADER_BYTES,
    KEY_LENGTH,
    SEQUENCE,
    parse_header,
    remove,
)
from cacheapp.backends.lmdb.reference_bits import EVICTED

# VERIFIED: a payload whose signature was checked when it was copied. PAYLOAD: one that each reader
# decodes in full. MISSING: Redis had no visible entry. FILLING: a lease, with its token. BLOCKED: a
# lease over which no fill stores, so that readers leave it there.
VERIFIED, PAYLOAD, MISSING, FILLING, BLOCKED = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"
_EPOCH = struct.Struct("<cQ")
_BODY_AT: Final = _EPOCH.size
STATE_KEY = b"near"
_STATE = struct.Struct("<16sQdddQ")


class State(NamedTuple):
    """What the machine knows about its copy. Times are seconds since the machine booted.

    `owner`: the token of the listener; only it changes the state, except the epoch. `epoch`: entries
    of another one are not served. `confirmed_until`: entries are served before this time.
    `claimed_until`: until then no other process may become the owner. `lag_s`: how long the last
    confirmation took. `pid`: the owner's process.
    """

    owner: bytes = bytes(16)
    epoch: int = 0
    confirmed_until: float = 0.0
    claimed_until: float = 0.0
    lag_s: float = 0.0
    pid: int = 0


NO_STATE = State()


class Copied(NamedTuple):
    """An entry of the copy as it was found; `tag` is empty if there is none."""

    tag: bytes = b""
    epoch: int = 0
    deadline: float = 0.0
    body: bytes = b""


ABSENT = Copied()


_FIGURES = (
    "copy_entries",
    "copy_bytes_used",
    "copy_bytes_free",
    "copy_evictions",
    "copy_epoch",
    "copy_listener_pid",
    "copy_confirmation_us",
)
NO_FIGURES = dict.fromkeys(_FIGURES, 0)


class NotOwner(Exception):
    """Another process has become the listener of this copy."""


def _state(env: OpenEnvironment, transaction: Transaction) -> State:
    raw = transaction.get(STATE_KEY, None, env.meta)
    return NO_STATE if raw is None or len(raw) != _STATE.size else State(*_STATE.unpack(raw))


def _put_state(env: OpenEnvironment, transaction: Transaction, state: State) -> None:
    transaction.put(STATE_KEY, _STATE.pack(*state), db=env.meta)


def _parse(encoded: EncodedKey, raw: bytes | None, env: OpenEnvironment) -> Copied:
    header = parse_header(raw)
    if raw is None or header is None:
        return ABSENT
    begin = HEADER_BYTES + header[KEY_LENGTH]
    if len(raw) < begin + _BODY_AT or raw[HEADER_BYTES:begin] != encoded[1]:
        return ABSENT
    bits = env.reference_bits
    bits.bits[header[SEQUENCE] & bits.mask] = 1
    tag, epoch = _EPOCH.unpack_from(raw, begin)
    return Copied(tag, epoch, header[DEADLINE], raw[begin + _BODY_AT :])


# -- reads ---------------------------------------------------------------------------------------

# For the fast path of `NearCache.get`: epoch and `confirmed_until` of a state; format and kind,
# deadline, sequence number, tag, epoch and first byte of the payload of an entry without a key inside.
unpack_proof = struct.Struct("<16xQd").unpack_from
unpack_plain = struct.Struct("<H6xd8xQBQB").unpack_from
PLAIN_BODY_AT: Final = HEADER_BYTES + _BODY_AT


def find(
    env: OpenEnvironment, transaction: Transaction, keys: Sequence[EncodedKey]
) -> tuple[State, list[Copied]]:
    """Return the state and the entries of the keys, all from one snapshot."""
    get, database = transaction.get, env.entries
    return _state(env, transaction), [
        _parse(each, get(each[0], None, database), env) for each in keys
    ]


def present(env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes]) -> list[bytes]:
    """Return the names that have an entry or a lease."""
    get, database = transaction.get, env.entries
    return [name for name in names if get(name, None, database) is not None]


def figures(env: OpenEnvironment, transaction: Transaction) -> dict[str, int]:
    """Return what the copy contains, and how its listener does."""
    state = _state(env, transaction)
    used = used_bytes(env, transaction)
    found = (
        transaction.stat(env.entries)["entries"],
        used,
        max(0, env.limits.usable_bytes - used),
        env.reference_bits.counters[EVICTED],
        state.epoch,
        state.pid,
        int(state.lag_s * 1e6),
    )
    return dict(zip(_FIGURES, found, strict=True))


# -- fills ---------------------------------------------------------------------------------------


def begin_fill(
    env: OpenEnvironment,
    transaction: Transaction,
    keys: Sequence[EncodedKey],
    token: bytes,
    lease_s: float,
) -> tuple[int, list[bool]]:
    """Replace each entry by a lease, unless another fill's lease is there.

    Return the epoch, and for each key whether this call holds its lease. Afterwards no key has an
    entry that is older than what the caller is about to read from Redis.
    """
    epoch = _state(env, transaction).epoch
    lease = _EPOCH.pack(FILLING, epoch) + token
    taken = []
    for encoded in keys:
        found = _parse(encoded, transaction.get(encoded[0], None, env.entries), env)
        leased = found.tag in {FILLING, BLOCKED} and found.epoch == epoch
        free = not leased or found.deadline <= env.now
        if free:
            put(env, transaction, encoded, lease, lease_s)
        taken.append(free)
    return epoch, taken


def block(
    env: OpenEnvironment,
    transaction: Transaction,
    keys: Sequence[EncodedKey],
    lease_s: float,
) -> None:
    """Replace entries and leases by leases that no fill has: the keys are read from Redis."""
    lease = _EPOCH.pack(BLOCKED, _state(env, transaction).epoch)
    for encoded in keys:
        put(env, transaction, encoded, lease, lease_s)


def end_fill(
    env: OpenEnvironment,
    transaction: Transaction,
    rows: Sequence[tuple[EncodedKey, bytes, bytes, float | None]],
    token: bytes,
    epoch: int,
) -> int:
    """Replace each lease of this fill by tag and body, with its deadline; an empty tag removes it.

    A lease that is gone stays gone: the key was written, or invalidated, after the fill began. Return
    how many leases were there.
    """
    count = 0
    lease = _EPOCH.pack(FILLING, epoch) + token
    for encoded, tag, body, deadline in rows:
        raw = transaction.get(encoded[0], None, env.entries)
        header = parse_header(raw)
        if raw is None or header is None or raw[HEADER_BYTES + header[KEY_LENGTH] :] != lease:
            continue
        count += 1
        ttl = None if deadline is None else deadline - env.now
        if not tag or (ttl is not None and ttl <= 0):
            remove(env, transaction, encoded[0], header)
        else:
            put(env, transaction, encoded, _EPOCH.pack(tag, epoch) + body, ttl)
    return count


def forget(env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes]) -> None:
    """Remove entries and leases."""
    for name in names:
        raw = transaction.get(name, None, env.entries)
        if raw is not None:
            remove(env, transaction, name, parse_header(raw))


def next_epoch(env: OpenEnvironment, transaction: Transaction) -> None:
    """Let no entry, and no fill in progress, be served: the whole database was emptied."""
    state = _state(env, transaction)
    _put_state(env, transaction, state._replace(epoch=state.epoch + 1))


# -- the listener --------------------------------------------------------------------------------


def claim(env: OpenEnvironment, transaction: Transaction, owner: bytes, within_s: float) -> bool:
    """Make `owner` the listener for `within_s` seconds if there is none; return True if it is."""
    state = _state(env, transaction)
    if env.now < state.claimed_until:
        return False
    until = env.now + within_s
    _put_state(env, transaction, state._replace(owner=owner, claimed_until=until, pid=os.getpid()))
    return True


def _owned(env: OpenEnvironment, transaction: Transaction, owner: bytes) -> State:
    state = _state(env, transaction)
    if state.owner != owner:
        raise NotOwner
    return state


def begin_epoch(env: OpenEnvironment, transaction: Transaction, owner: bytes) -> None:
    """Begin a new epoch: no entry, and no fill in progress, of an earlier one is served."""
    state = _owned(env, transaction, owner)
    changed = state._replace(epoch=state.epoch + 1, confirmed_until=0.0)
    _put_state(env, transaction, changed)


def apply(
    env: OpenEnvironment,
    transaction: Transaction,
    owner: bytes,
    names: Sequence[bytes],
    flushed: bool,  # noqa: FBT001 (arguments of a transaction have no names)
    confirmed: tuple[float, float] | None,
) -> None:
    """Remove invalidated entries; if `confirmed`, set until when entries are served, and the lag.

    `flushed`: the whole database was emptied. The entries of an earlier epoch are not served, so
    that takes one record.
    """
    state = _owned(env, transaction, owner)
    forget(env, transaction, names)
    if flushed:
        state = state._replace(epoch=state.epoch + 1)
    if confirmed is not None:
        until, lag_s = confirmed
        state = state._replace(confirmed_until=until, claimed_until=until, lag_s=lag_s)
    if flushed or confirmed is not None:
        _put_state(env, transaction, state)


def release(env: OpenEnvironment, transaction: Transaction, owner: bytes, retry_at: float) -> None:
    """Let another process become the listener from `retry_at` on; the entries stay valid."""
    state = _owned(env, transaction, owner)
    _put_state(env, transaction, state._replace(owner=bytes(16), claimed_until=retry_at))
