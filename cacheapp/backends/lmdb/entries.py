"""The primitives as work inside one transaction. Names are keys as LMDB has them (see `names`)."""

from collections.abc import Sequence
from typing import TypeAlias

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import NotCountable
from cacheapp.backends.lmdb import eviction
from cacheapp.backends.lmdb.records import (
    FORMAT,
    HEAD_BYTES,
    INT,
    INT64,
    NEVER,
    NUMBER,
    SPECIAL,
    Head,
    head_of,
    index,
    next_number,
    pack_head,
    packed,
    payload_of,
    remove,
    unpack_head,
)
from cacheapp.backends.lmdb.reference_bits import TURNED_AWAY
from cacheapp.backends.lmdb.session import Session, Transaction

Name: TypeAlias = tuple[bytes, bytes]
"""A key as LMDB has it; and the key itself where that is only its hash, else nothing."""

Found: TypeAlias = tuple[bytes, Head]


def deadline_of(now: float, ttl: float | None) -> float:
    """Return when a TTL ends."""
    return NEVER if ttl is None else now + ttl


def alive(session: Session, transaction: Transaction, name: bytes, now: float) -> Found | None:
    """Return an entry whose deadline has not passed, and its header."""
    raw = transaction.get(name, None, session.entries)
    head = head_of(raw)
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
    payload = payload_of(*found)
    return type(payload) is type(expected) and payload == expected


# -- reads -------------------------------------------------------------------------------------


def peek(session: Session, transaction: Transaction, name: bytes) -> Found | None:
    """Return an entry that is alive."""
    return alive(session, transaction, name, clock.boot_s())


def peek_many(
    session: Session, transaction: Transaction, names: Sequence[bytes]
) -> list[bytes | None]:
    """Return what stands at each name, all of one snapshot."""
    get, database = transaction.get, session.entries
    return [get(name, None, database) for name in names]


def page(
    session: Session, transaction: Transaction, start: bytes, after: bytes, most: int
) -> list[tuple[bytes, Found | None]]:
    """Return the next entries whose names begin with `start`, in order, after a name."""
    cursor = transaction.cursor(session.entries)
    now = clock.boot_s()
    found: list[tuple[bytes, Found | None]] = []
    more = cursor.set_range(after + b"\0" if after else start)
    while more and len(found) < most:
        name, raw = cursor.item()
        if not name.startswith(start):
            break
        head = head_of(raw)
        dead = head is None or head[3] <= now
        found.append((name, None if dead or head is None else (raw, head)))
        more = cursor.next()
    return found


# -- writes ------------------------------------------------------------------------------------


def put(
    session: Session, transaction: Transaction, name: Name, payload: Payload, ttl: float | None
) -> None:
    """Store an entry."""
    now = session.now
    if now >= session.due_s:
        eviction.expire(session, transaction, now)
    write(session, transaction, name, payload, NEVER if ttl is None else now + ttl)


def put_many(
    session: Session,
    transaction: Transaction,
    items: Sequence[tuple[Name, Payload]],
    ttl: float | None,
) -> None:
    """Store all entries."""
    for name, payload in items:
        put(session, transaction, name, payload, ttl)


def write(
    session: Session, transaction: Transaction, name: Name, payload: Payload, deadline: float
) -> None:
    """Put an entry into the place of the one that is there, or at the end of the queue."""
    key, long_key = name
    kind, body = packed(payload)
    entries = session.entries
    old = transaction.get(key, None, entries)
    longer = HEAD_BYTES + len(long_key) + len(body) - (len(old) if old is not None else -len(key))
    if longer > 0 and eviction.before_growth(session, transaction, longer, old is None):
        old = transaction.get(key, None, entries)  # perhaps it was this one that went
    marks = session.marks
    if old is not None and len(old) >= HEAD_BYTES and old[0] == FORMAT:
        _, _, _, _, indexed, number = unpack_head(old)
        marks.used[number & marks.mask] = 1
    else:
        if old is not None:  # its other records are not known
            transaction.delete(key, b"", entries)
        number, indexed = next_number(session, transaction), NEVER
        transaction.put(NUMBER.pack(number), key, True, True, True, session.queue)  # noqa: FBT003
        marks.used[number & marks.mask] = kind == SPECIAL  # a lease should be the last to go
    if deadline < indexed:
        indexed = index(session, transaction, number, indexed, deadline)
    header = pack_head(FORMAT, kind, len(long_key), deadline, indexed, number)
    transaction.put(key, header + long_key + body, True, True, False, entries)  # noqa: FBT003


def add(
    session: Session, transaction: Transaction, name: Name, payload: Payload, ttl: float | None
) -> bool:
    """Store an entry where none is that everybody sees."""
    found = alive(session, transaction, name[0], session.now)
    if found is not None and is_visible(found):
        return False
    put(session, transaction, name, payload, ttl)
    return True


def drop(session: Session, transaction: Transaction, names: Sequence[bytes]) -> int:
    """Remove entries; return how many everybody saw."""
    now = session.now
    count = 0
    for name in names:
        raw = transaction.get(name, None, session.entries)
        if raw is not None:
            head = head_of(raw)
            count += head is not None and head[3] > now and is_visible((raw, head))
            remove(session, transaction, name, head)
    return count


def turn_away(session: Session, transaction: Transaction, names: Sequence[bytes]) -> None:
    """Remove what stood at these names, as what was to replace it finds no room."""
    drop(session, transaction, names)
    session.marks.numbers[TURNED_AWAY] += len(names)


def incr(session: Session, transaction: Transaction, name: bytes, delta: int) -> int | None:
    """Add to an integer of any size; `None` where there is none; raise `NotCountable`."""
    raw = transaction.get(name, None, session.entries)
    head = head_of(raw)
    if raw is None or head is None or head[3] <= session.now:
        return None
    if head[1] != INT:
        if not is_visible((raw, head)):
            return None
        raise NotCountable(payload_of(raw, head))
    begin = HEAD_BYTES + head[2]
    if len(raw) == begin + INT64.size:
        total: int = INT64.unpack_from(raw, begin)[0] + delta
    else:
        total = int.from_bytes(raw[begin:], "little", signed=True) + delta
    transaction.put(name, raw[:begin] + packed(total)[1], True, True, False, session.entries)  # noqa: FBT003
    session.marks.used[head[5] & session.marks.mask] = 1
    return total


def set_deadline(session: Session, transaction: Transaction, name: Name, ttl: float | None) -> bool:
    """Replace the deadline of an entry that everybody sees; it has no soft one then."""
    now = session.now
    found = alive(session, transaction, name[0], now)
    if found is None or not is_visible(found):
        return False
    write(session, transaction, name, _unwrapped(found), deadline_of(now, ttl))
    return True


def persist(session: Session, transaction: Transaction, name: Name) -> bool:
    """Take the deadline away, a soft one too; return whether there was one."""
    found = alive(session, transaction, name[0], session.now)
    if found is None or not is_visible(found):
        return False
    if found[1][3] == NEVER and found[1][1] != SPECIAL:
        return False
    write(session, transaction, name, _unwrapped(found), NEVER)
    return True


def _unwrapped(found: Found) -> Payload:
    payload = payload_of(*found)
    if isinstance(payload, bytes) and lease_format.is_soft(payload):
        return lease_format.unwrap(payload)[0]
    return payload


def exchange(
    session: Session,
    transaction: Transaction,
    source: Name,
    target: Name,
    expected: Payload,
    payload: Payload,
) -> bool:
    """Put the payload at `target` with the deadline of `source`, which goes; they may be one."""
    found = alive(session, transaction, source[0], session.now)
    if found is None or not holds(found, expected):
        return False
    deadline = found[1][3]
    if source != target:
        remove(session, transaction, source[0], found[1])
    write(session, transaction, target, payload, deadline)
    return True


def discard(session: Session, transaction: Transaction, name: bytes, expected: Payload) -> bool:
    """Remove an entry if it holds `expected`."""
    found = alive(session, transaction, name, session.now)
    if found is None or not holds(found, expected):
        return False
    remove(session, transaction, name, found[1])
    return True


def fill(
    session: Session,
    transaction: Transaction,
    name: Name,
    expected: Payload | None,
    payload: Payload,
    ttl: float | None,
) -> bool:
    """Store the payload if `expected` is there, or nothing where that is `None`."""
    found = alive(session, transaction, name[0], session.now)
    if (found is not None) if expected is None else not holds(found, expected):
        return False
    put(session, transaction, name, payload, ttl)
    return True
