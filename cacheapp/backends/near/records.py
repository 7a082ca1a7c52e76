"""What the copy stores, as the work of single LMDB transactions.

An entry of the copy is a tag, the epoch in which it was fetched, and what Redis returned. The *state*
is one record of the environment's own: it is read in the same snapshot as the entry, so a reader
never combines an entry with the state of another moment.

A counter of changes per name (`ReferenceBits.count_change`) grows with each write, each invalidation
and each removal. A fill stores what it read only if the counter has not grown since it began.
"""

import os
import struct
import zlib
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
# decodes in full. MISSING: Redis had no visible entry.
VERIFIED, PAYLOAD, MISSING = b"\x01", b"\x02", b"\x03"
_EPOCH = struct.Struct("<cQ")
_BODY_AT: Final = _EPOCH.size
STATE_KEY = b"near"
# Under `owners` an earlier release has another form, which this one cannot read, nor the other way round.
_OWNERS_KEY = b"owners-packed"
_CLAIMED_ROUNDS = 4
_MAX_CLAIMED_S = 10.0
_STATE = struct.Struct("<16sQdddQ")
_MOVES = struct.Struct("<Qd")
_MOVES_KEY = struct.Struct("<5sI")


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


class Fill(NamedTuple):
    """A fill in progress: where and when it began, and the counters of its names then."""

    env: OpenEnvironment
    epoch: int
    changes: dict[bytes, int]


class Row(NamedTuple):
    """What a read found in Redis; an empty tag means that it is not stored in the copy."""

    encoded: EncodedKey
    tag: bytes
    body: bytes
    deadline: float | None


def begin_fill(
    env: OpenEnvironment, transaction: Transaction, keys: Sequence[EncodedKey]
) -> tuple[Fill, list[bytes]]:
    """Return a fill of the keys, and the names of those that have an old entry.

    If there are any, `forget` them and begin again: a fill has begun if no name has an entry.
    """
    names = [encoded[0] for encoded in keys]
    changes = {name: env.reference_bits.changes(name) for name in names}
    found = present(env, transaction, names)
    return Fill(env, _state(env, transaction).epoch, changes), found


def end_fill(
    env: OpenEnvironment, transaction: Transaction, rows: Sequence[Row], fill: Fill | None
) -> int:
    """Store each row whose name has not changed since the fill began; return how many are stored.

    Afterwards the copy has no other value of these names, and no fill that is in progress stores
    one: it may have read an older value than the rows. Without a fill, nothing is stored.
    """
    epoch = _state(env, transaction).epoch
    if fill is not None and (fill.env is not env or fill.epoch != epoch):
        fill = None
    return sum(_end_fill_of(env, transaction, row, fill, epoch) for row in rows)


def end_fill_of_one(
    env: OpenEnvironment, transaction: Transaction, item: tuple[Row, Fill | None]
) -> bool:
    """Store one row as `end_fill` does."""
    row, fill = item
    raw = transaction.get(STATE_KEY, None, env.meta)
    epoch = 0 if raw is None else unpack_proof(raw)[0]
    if fill is not None and (fill.env is not env or fill.epoch != epoch):
        fill = None
    return _end_fill_of(env, transaction, row, fill, epoch)


def _end_fill_of(
    env: OpenEnvironment, transaction: Transaction, row: Row, fill: Fill | None, epoch: int
) -> bool:
    encoded, tag, body, deadline = row
    name = encoded[0]
    raw = transaction.get(name, None, env.entries)
    if raw is not None:  # of another fill, which ended earlier
        found = _parse(encoded, raw, env)
        if tag and (found.tag, found.epoch, found.body) == (tag, epoch, body):
            return True
        forget(env, transaction, [name])
        return False
    bits = env.reference_bits
    ttl = None if deadline is None else deadline - env.now
    if (
        fill is None
        or fill.changes[name] != bits.changes(name)
        or not tag
        or (ttl is not None and ttl <= 0)
        or _is_moved(env, transaction, name)
    ):
        bits.count_change(name)
        return False
    put(env, transaction, encoded, _EPOCH.pack(tag, epoch) + body, ttl)
    return True


def forget(env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes]) -> None:
    """Remove entries, and void the fills in progress."""
    for name in names:
        forget_one(env, transaction, name)


def forget_one(env: OpenEnvironment, transaction: Transaction, name: bytes) -> None:
    """Remove an entry, and void the fills in progress."""
    env.reference_bits.count_change(name)
    raw = transaction.get(name, None, env.entries)
    if raw is not None:
        remove(env, transaction, name, parse_header(raw))


# -- moves ---------------------------------------------------------------------------------------


def _moves_key(name: bytes) -> bytes:
    return _MOVES_KEY.pack(b"moves", zlib.crc32(name))


def _moves(env: OpenEnvironment, transaction: Transaction, name: bytes) -> tuple[int, float]:
    """Return how many moves of an entry of this name are in progress, and until when at most."""
    raw = transaction.get(_moves_key(name), None, env.meta)
    count, until = (0, 0.0) if raw is None else _MOVES.unpack(raw)
    return (count, until) if env.now < until else (0, 0.0)


def _is_moved(env: OpenEnvironment, transaction: Transaction, name: bytes) -> bool:
    return _moves(env, transaction, name)[0] > 0


def begin_move(
    env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes], within_s: float
) -> float:
    """Remove the entries, and let no fill store any until `end_move`, or for `within_s` seconds.

    Invalidations, writes and evictions do not change that. Return when it ends at the latest.
    """
    forget(env, transaction, names)
    until = env.now + within_s
    for name in names:
        count = _moves(env, transaction, name)[0] + 1
        transaction.put(_moves_key(name), _MOVES.pack(count, until), db=env.meta)
    return until


def end_move(
    env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes], until: float
) -> None:
    """Let fills store entries again, when no other move is in progress."""
    forget(env, transaction, names)
    if env.now >= until:  # it does not count any more
        return
    for name in names:
        count, latest = _moves(env, transaction, name)
        if count > 1:
            transaction.put(_moves_key(name), _MOVES.pack(count - 1, latest), db=env.meta)
        else:
            transaction.delete(_moves_key(name), b"", env.meta)


# -- the state -----------------------------------------------------------------------------------


def next_epoch(env: OpenEnvironment, transaction: Transaction) -> None:
    """Let no entry be served, and void the fills in progress: the whole database was emptied."""
    state = _state(env, transaction)
    _put_state(env, transaction, state._replace(epoch=state.epoch + 1))


def claim(env: OpenEnvironment, transaction: Transaction, owner: bytes, within_s: float) -> bool:
    """Make `owner` the listener for `within_s` seconds if there is none; return True if it is."""
    state = _state(env, transaction)
    if env.now < state.claimed_until:
        return False
    until = env.now + within_s
    _put_state(env, transaction, state._replace(owner=owner, claimed_until=until, pid=os.getpid()))
    return True


def renew(env: OpenEnvironment, transaction: Transaction, owner: bytes, within_s: float) -> None:
    """Let no other process become the listener for `within_s` seconds from now on."""
    state = _owned(env, transaction, owner)
    _put_state(env, transaction, state._replace(claimed_until=env.now + within_s))


def _owned(env: OpenEnvironment, transaction: Transaction, owner: bytes) -> State:
    state = _state(env, transaction)
    if state.owner != owner:
        raise NotOwner
    return state


def begin_epoch(
    env: OpenEnvironment, transaction: Transaction, owner: bytes, owners: bytes
) -> None:
    """Begin a new epoch: no entry of an earlier one is served, and no fill of one ends.

    `owners`: which node of a cluster has which slots in this epoch, and until the next call.
    """
    state = _owned(env, transaction, owner)
    changed = state._replace(epoch=state.epoch + 1, confirmed_until=0.0)
    _put_state(env, transaction, changed)
    if owners:
        transaction.put(_OWNERS_KEY, owners, db=env.meta)


def owners(
    env: OpenEnvironment, transaction: Transaction
) -> tuple[OpenEnvironment | None, int, bytes]:
    """Return the environment, its current epoch and the owners in it, as in `begin_epoch`."""
    return env, _state(env, transaction).epoch, transaction.get(_OWNERS_KEY, b"", env.meta)


def void_fills(
    env: OpenEnvironment, transaction: Transaction, owner: bytes, names: Sequence[bytes]
) -> None:
    """Void the fills of invalidated names: entries that are there afterwards are seen by `present`."""
    _owned(env, transaction, owner)
    count_change = env.reference_bits.count_change
    for name in names:
        count_change(name)


def apply(
    env: OpenEnvironment,
    transaction: Transaction,
    owner: bytes,
    names: Sequence[bytes],
    flushed: bool,  # noqa: FBT001 (arguments of a transaction have no names)
    confirmed: tuple[float, float] | None,
) -> None:
    """Remove invalidated entries; if `confirmed`, set until when entries are served, and the lag.

    A listener whose rounds take long keeps its claim for several of them: it confirms nothing then, but the next
    one would have to connect anew to the same slow servers. For some seconds at most: a round of a process that
    was stopped takes as long as that, and if it is killed next, another one is to follow soon.
    `flushed`: the whole database was emptied. The entries of an earlier epoch are not served, so
    that takes one record.
    """
    state = _owned(env, transaction, owner)
    forget(env, transaction, names)
    if flushed:
        state = state._replace(epoch=state.epoch + 1)
    if confirmed is not None:
        until, lag_s = confirmed
        claimed_until = max(until, env.now + min(_CLAIMED_ROUNDS * lag_s, _MAX_CLAIMED_S))
        state = state._replace(confirmed_until=until, claimed_until=claimed_until, lag_s=lag_s)
    if flushed or confirmed is not None:
        _put_state(env, transaction, state)


def release(env: OpenEnvironment, transaction: Transaction, owner: bytes, retry_at: float) -> None:
    """Let another process become the listener from `retry_at` on; the entries stay valid."""
    state = _owned(env, transaction, owner)
    _put_state(env, transaction, state._replace(owner=bytes(16), claimed_until=retry_at))
