"""The primitives of `LMDBStore`, each as the work of one transaction.

A *name* is a key as LMDB stores it; see `key_encoding`.
"""

from collections.abc import Sequence
from typing import TypeAlias

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import NotCountable
from cacheapp.backends.lmdb import eviction
from cacheapp.backends.lmdb.key_encoding import EncodedKey
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.records import (
    DEADLINE,
    FORMAT,
    HEADER_BYTES,
    INT,
    INT64,
    KEY_LENGTH,
    KIND,
    NEVER,
    SEQUENCE,
    SEQUENCE_KEY,
    SPECIAL,
    Header,
    decode_payload,
    encode_payload,
    index_deadline,
    next_sequence_number,
    pack_header,
    parse_header,
    remove,
    unpack_header,
)
from cacheapp.backends.lmdb.reference_bits import REJECTED

Found: TypeAlias = tuple[bytes, Header]


def deadline_of(now: float, ttl: float | None) -> float:
    """Return the deadline that a TTL means."""
    return NEVER if ttl is None else now + ttl


def find_live(
    env: OpenEnvironment, transaction: Transaction, name: bytes, now: float
) -> Found | None:
    """Return an unexpired entry with its header."""
    raw = transaction.get(name, None, env.entries)
    header = parse_header(raw)
    if raw is None or header is None or header[DEADLINE] <= now:
        return None
    return raw, header


def is_visible(found: Found) -> bool:
    """Return True if every reader may see this live entry: not a lease, nor past a soft deadline."""
    raw, header = found
    if header[KIND] != SPECIAL:
        return True
    begin = HEADER_BYTES + header[KEY_LENGTH]
    return lease_format.is_visible(raw[begin : begin + lease_format.HEAD_BYTES], clock.wall_s())


def holds(found: Found | None, expected: Payload) -> bool:
    """Return True if an entry holds exactly `expected`."""
    if found is None:
        return False
    payload = decode_payload(*found)
    return type(payload) is type(expected) and payload == expected


# -- reads ---------------------------------------------------------------------------------------


def peek(env: OpenEnvironment, transaction: Transaction, name: bytes) -> Found | None:
    """Return a live entry; leave its reference bit alone."""
    return find_live(env, transaction, name, clock.boot_s())


def peek_many(
    env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes]
) -> list[bytes | None]:
    """Return the stored bytes of each name, all from one snapshot."""
    get, database = transaction.get, env.entries
    return [get(name, None, database) for name in names]


def page(
    env: OpenEnvironment, transaction: Transaction, start: bytes, after: bytes, limit: int
) -> list[tuple[bytes, Found | None]]:
    """Return the next entries, in the order of their names, that begin with `start`."""
    cursor = transaction.cursor(env.entries)
    now = clock.boot_s()
    found: list[tuple[bytes, Found | None]] = []
    more = cursor.set_range(after + b"\0" if after else start)
    while more and len(found) < limit:
        name, raw = cursor.item()
        if not name.startswith(start):
            break
        header = parse_header(raw)
        dead = header is None or header[DEADLINE] <= now
        found.append((name, None if dead or header is None else (raw, header)))
        more = cursor.next()
    return found


# -- writes --------------------------------------------------------------------------------------


def put(
    env: OpenEnvironment,
    transaction: Transaction,
    encoded: EncodedKey,
    payload: Payload,
    ttl: float | None,
) -> None:
    """Store an entry."""
    now = env.now
    if now >= env.due_s:
        eviction.expire(env, transaction, now)
    write(env, transaction, encoded, payload, NEVER if ttl is None else now + ttl)


def put_many(
    env: OpenEnvironment,
    transaction: Transaction,
    items: Sequence[tuple[EncodedKey, Payload]],
    ttl: float | None,
) -> None:
    """Store all entries."""
    for encoded, payload in items:
        put(env, transaction, encoded, payload, ttl)


def write(
    env: OpenEnvironment,
    transaction: Transaction,
    encoded: EncodedKey,
    payload: Payload,
    deadline: float,
) -> None:
    """Replace an entry, which keeps its position in the queue, or append a new one."""
    name, long_key = encoded
    kind, body = encode_payload(payload)
    entries = env.entries
    old = transaction.get(name, None, entries)
    before = len(old) if old is not None else -len(name)
    added_bytes = HEADER_BYTES + len(long_key) + len(body) - before
    if added_bytes > 0 and eviction.before_growth(env, transaction, added_bytes, old is None):
        old = transaction.get(name, None, entries)  # the eviction may have removed this one
    bits = env.reference_bits
    if old is not None and len(old) >= HEADER_BYTES and old[0] == FORMAT:
        _, _, _, _, indexed, number = unpack_header(old)
        bits.bits[number & bits.mask] = 1
    else:
        if old is not None:  # an unknown format: its other records cannot be found
            transaction.delete(name, b"", entries)
        number, indexed = next_sequence_number(env, transaction), NEVER
        key = SEQUENCE_KEY.pack(number)
        transaction.put(key, name, True, True, True, env.queue)  # noqa: FBT003
        bits.bits[number & bits.mask] = kind == SPECIAL  # leases should be evicted last
    if deadline < indexed:
        index_deadline(env, transaction, number, indexed, deadline)
        indexed = deadline
    header = pack_header(FORMAT, kind, len(long_key), deadline, indexed, number)
    transaction.put(name, header + long_key + body, True, True, False, entries)  # noqa: FBT003


def add(
    env: OpenEnvironment,
    transaction: Transaction,
    encoded: EncodedKey,
    payload: Payload,
    ttl: float | None,
) -> bool:
    """Store an entry unless a visible one exists; return True if it was stored."""
    found = find_live(env, transaction, encoded[0], env.now)
    if found is not None and is_visible(found):
        return False
    put(env, transaction, encoded, payload, ttl)
    return True


def delete(env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes]) -> int:
    """Remove entries; return the number of those that were visible."""
    now = env.now
    count = 0
    for name in names:
        raw = transaction.get(name, None, env.entries)
        if raw is not None:
            header = parse_header(raw)
            count += header is not None and header[DEADLINE] > now and is_visible((raw, header))
            remove(env, transaction, name, header)
    return count


def delete_rejected(env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes]) -> None:
    """Remove entries because there is no space for their new values; count them."""
    delete(env, transaction, names)
    env.reference_bits.counters[REJECTED] += len(names)


def incr(env: OpenEnvironment, transaction: Transaction, name: bytes, delta: int) -> int | None:
    """Add to an integer of any size; return `None` if there is no entry.

    Raises `NotCountable` if the entry holds something else.
    """
    raw = transaction.get(name, None, env.entries)
    header = parse_header(raw)
    if raw is None or header is None or header[DEADLINE] <= env.now:
        return None
    if header[KIND] != INT:
        if not is_visible((raw, header)):
            return None
        raise NotCountable(decode_payload(raw, header))
    begin = HEADER_BYTES + header[KEY_LENGTH]
    if len(raw) == begin + INT64.size:
        total: int = INT64.unpack_from(raw, begin)[0] + delta
    else:
        total = int.from_bytes(raw[begin:], "little", signed=True) + delta
    changed = raw[:begin] + encode_payload(total)[1]
    transaction.put(name, changed, True, True, False, env.entries)  # noqa: FBT003
    env.reference_bits.bits[header[SEQUENCE] & env.reference_bits.mask] = 1
    return total


def set_deadline(
    env: OpenEnvironment, transaction: Transaction, encoded: EncodedKey, ttl: float | None
) -> bool:
    """Replace the deadline of a visible entry, and remove its soft deadline."""
    now = env.now
    found = find_live(env, transaction, encoded[0], now)
    if found is None or not is_visible(found):
        return False
    write(env, transaction, encoded, _unwrapped(found), deadline_of(now, ttl))
    return True


def persist(env: OpenEnvironment, transaction: Transaction, encoded: EncodedKey) -> bool:
    """Remove the deadline and the soft deadline; return True if there was one."""
    found = find_live(env, transaction, encoded[0], env.now)
    if found is None or not is_visible(found):
        return False
    if found[1][DEADLINE] == NEVER and found[1][KIND] != SPECIAL:
        return False
    write(env, transaction, encoded, _unwrapped(found), NEVER)
    return True


def _unwrapped(found: Found) -> Payload:
    payload = decode_payload(*found)
    if isinstance(payload, bytes) and lease_format.has_soft_deadline(payload):
        return lease_format.unwrap(payload)[0]
    return payload


def move(
    env: OpenEnvironment,
    transaction: Transaction,
    source: EncodedKey,
    target: EncodedKey,
    expected: Payload,
    payload: Payload,
) -> bool:
    """Store the payload at `target` with the deadline of `source`, and remove `source`.

    Both may be the same. Nothing changes unless `source` holds `expected`.
    """
    found = find_live(env, transaction, source[0], env.now)
    if found is None or not holds(found, expected):
        return False
    deadline = found[1][DEADLINE]
    if source != target:
        remove(env, transaction, source[0], found[1])
    write(env, transaction, target, payload, deadline)
    return True


def discard(env: OpenEnvironment, transaction: Transaction, name: bytes, expected: Payload) -> bool:
    """Remove an entry if it holds `expected`."""
    found = find_live(env, transaction, name, env.now)
    if found is None or not holds(found, expected):
        return False
    remove(env, transaction, name, found[1])
    return True


def fill(
    env: OpenEnvironment,
    transaction: Transaction,
    encoded: EncodedKey,
    expected: Payload | None,
    payload: Payload,
    ttl: float | None,
) -> bool:
    """Store the payload if the entry holds `expected`; or, for `None`, if there is no entry."""
    found = find_live(env, transaction, encoded[0], env.now)
    if (found is not None) if expected is None else not holds(found, expected):
        return False
    put(env, transaction, encoded, payload, ttl)
    return True
