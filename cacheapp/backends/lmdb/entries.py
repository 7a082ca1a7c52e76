"""The primitives as work inside one transaction. Names are keys as LMDB has them (see `names`)."""

from collections.abc import Sequence
from typing import TypeAlias

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import NotCountable
from cacheapp.backends.lmdb import eviction
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.records import (
    FORMAT,
    HEAD_BYTES,
    INT,
    INT64,
    NEVER,
    NUMBER,
    SPECIAL,
    Header,
    decode_payload,
    encode_payload,
    index,
    next_sequence_number,
    pack_head,
    parse_header,
    remove,
    unpack_head,
)
from cacheapp.backends.lmdb.reference_bits import REJECTED

Name: TypeAlias = tuple[bytes, bytes]
"""A key as LMDB has it; and the key itself where that is only its hash, else nothing."""

Found: TypeAlias = tuple[bytes, Header]


def deadline_of(now: float, ttl: float | None) -> float:
    """Return when a TTL ends."""
    return NEVER if ttl is None else now + ttl


def find_live(
    env: OpenEnvironment, transaction: Transaction, name: bytes, now: float
) -> Found | None:
    """Return an entry whose deadline has not passed, and its header."""
    raw = transaction.get(name, None, env.entries)
    head = parse_header(raw)
    return None if raw is None or head is None or head[3] <= now else (raw, head)


def is_visible(found: Found) -> bool:
    """Return whether everybody may see an entry that is alive."""
    raw, head = found
    if head[1] != SPECIAL:
        return True
    begin = HEAD_BYTES + head[2]
    return lease_format.is_visible(raw[begin : begin + lease_format.HEAD_BYTES], clock.wall_s())


def holds(found: Found | None, expected: Payload) -> bool:
    """Return whether an entry holds exactly `expected`."""
    if found is None:
        return False
    payload = decode_payload(*found)
    return type(payload) is type(expected) and payload == expected


# -- reads -------------------------------------------------------------------------------------


def peek(env: OpenEnvironment, transaction: Transaction, name: bytes) -> Found | None:
    """Return an entry that is alive."""
    return find_live(env, transaction, name, clock.boot_s())


def peek_many(
    env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes]
) -> list[bytes | None]:
    """Return what stands at each name, all of one snapshot."""
    get, database = transaction.get, env.entries
    return [get(name, None, database) for name in names]


def page(
    env: OpenEnvironment, transaction: Transaction, start: bytes, after: bytes, most: int
) -> list[tuple[bytes, Found | None]]:
    """Return the next entries whose names begin with `start`, in order, after a name."""
    cursor = transaction.cursor(env.entries)
    now = clock.boot_s()
    found: list[tuple[bytes, Found | None]] = []
    more = cursor.set_range(after + b"\0" if after else start)
    while more and len(found) < most:
        name, raw = cursor.item()
        if not name.startswith(start):
            break
        head = parse_header(raw)
        dead = head is None or head[3] <= now
        found.append((name, None if dead or head is None else (raw, head)))
        more = cursor.next()
    return found


# -- writes ------------------------------------------------------------------------------------


def put(
    env: OpenEnvironment, transaction: Transaction, name: Name, payload: Payload, ttl: float | None
) -> None:
    """Store an entry."""
    now = env.now
    if now >= env.due_s:
        eviction.expire(env, transaction, now)
    write(env, transaction, name, payload, NEVER if ttl is None else now + ttl)


def put_many(
    env: OpenEnvironment,
    transaction: Transaction,
    items: Sequence[tuple[Name, Payload]],
    ttl: float | None,
) -> None:
    """Store all entries."""
    for name, payload in items:
        put(env, transaction, name, payload, ttl)


def write(
    env: OpenEnvironment, transaction: Transaction, name: Name, payload: Payload, deadline: float
) -> None:
    """Put an entry into the place of the one that is there, or at the end of the queue."""
    key, long_key = name
    kind, body = encode_payload(payload)
    entries = env.entries
    old = transaction.get(key, None, entries)
    longer = HEAD_BYTES + len(long_key) + len(body) - (len(old) if old is not None else -len(key))
    if longer > 0 and eviction.before_growth(env, transaction, longer, old is None):
        old = transaction.get(key, None, entries)  # perhaps it was this one that went
    reference_bits = env.reference_bits
    if old is not None and len(old) >= HEAD_BYTES and old[0] == FORMAT:
        _, _, _, _, indexed, number = unpack_head(old)
        reference_bits.bits[number & reference_bits.mask] = 1
    else:
        if old is not None:  # its other records are not known
            transaction.delete(key, b"", entries)
        number, indexed = next_sequence_number(env, transaction), NEVER
        transaction.put(NUMBER.pack(number), key, True, True, True, env.queue)  # noqa: FBT003
        reference_bits.bits[number & reference_bits.mask] = (
            kind == SPECIAL
        )  # a lease should be the last to go
    if deadline < indexed:
        indexed = index(env, transaction, number, indexed, deadline)
    header = pack_head(FORMAT, kind, len(long_key), deadline, indexed, number)
    transaction.put(key, header + long_key + body, True, True, False, entries)  # noqa: FBT003


def add(
    env: OpenEnvironment, transaction: Transaction, name: Name, payload: Payload, ttl: float | None
) -> bool:
    """Store an entry where none is that everybody sees."""
    found = find_live(env, transaction, name[0], env.now)
    if found is not None and is_visible(found):
        return False
    put(env, transaction, name, payload, ttl)
    return True


def drop(env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes]) -> int:
    """Remove entries; return how many everybody saw."""
    now = env.now
    count = 0
    for name in names:
        raw = transaction.get(name, None, env.entries)
        if raw is not None:
            head = parse_header(raw)
            count += head is not None and head[3] > now and is_visible((raw, head))
            remove(env, transaction, name, head)
    return count


def turn_away(env: OpenEnvironment, transaction: Transaction, names: Sequence[bytes]) -> None:
    """Remove what stood at these names, as what was to replace it finds no room."""
    drop(env, transaction, names)
    env.reference_bits.counters[REJECTED] += len(names)


def incr(env: OpenEnvironment, transaction: Transaction, name: bytes, delta: int) -> int | None:
    """Add to an integer of any size; `None` where there is none; raise `NotCountable`."""
    raw = transaction.get(name, None, env.entries)
    head = parse_header(raw)
    if raw is None or head is None or head[3] <= env.now:
        return None
    if head[1] != INT:
        if not is_visible((raw, head)):
            return None
        raise NotCountable(decode_payload(raw, head))
    begin = HEAD_BYTES + head[2]
    if len(raw) == begin + INT64.size:
        total: int = INT64.unpack_from(raw, begin)[0] + delta
    else:
        total = int.from_bytes(raw[begin:], "little", signed=True) + delta
    transaction.put(name, raw[:begin] + encode_payload(total)[1], True, True, False, env.entries)  # noqa: FBT003
    env.reference_bits.bits[head[5] & env.reference_bits.mask] = 1
    return total


def set_deadline(
    env: OpenEnvironment, transaction: Transaction, name: Name, ttl: float | None
) -> bool:
    """Replace the deadline of an entry that everybody sees; it has no soft one then."""
    now = env.now
    found = find_live(env, transaction, name[0], now)
    if found is None or not is_visible(found):
        return False
    write(env, transaction, name, _unwrapped(found), deadline_of(now, ttl))
    return True


def persist(env: OpenEnvironment, transaction: Transaction, name: Name) -> bool:
    """Take the deadline away, a soft one too; return whether there was one."""
    found = find_live(env, transaction, name[0], env.now)
    if found is None or not is_visible(found):
        return False
    if found[1][3] == NEVER and found[1][1] != SPECIAL:
        return False
    write(env, transaction, name, _unwrapped(found), NEVER)
    return True


def _unwrapped(found: Found) -> Payload:
    payload = decode_payload(*found)
    if isinstance(payload, bytes) and lease_format.is_soft(payload):
        return lease_format.unwrap(payload)[0]
    return payload


def exchange(
    env: OpenEnvironment,
    transaction: Transaction,
    source: Name,
    target: Name,
    expected: Payload,
    payload: Payload,
) -> bool:
    """Put the payload at `target` with the deadline of `source`, which goes; they may be one."""
    found = find_live(env, transaction, source[0], env.now)
    if found is None or not holds(found, expected):
        return False
    deadline = found[1][3]
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
    name: Name,
    expected: Payload | None,
    payload: Payload,
    ttl: float | None,
) -> bool:
    """Store the payload if `expected` is there, or nothing where that is `None`."""
    found = find_live(env, transaction, name[0], env.now)
    if (found is not None) if expected is None else not holds(found, expected):
        return False
    put(env, transaction, name, payload, ttl)
    return True
