"""Keeps the cache below its limits: expired entries go first, then those that SIEVE chooses.

SIEVE (Zhang et al., NSDI 2024): entries stand in a queue in the order in which they came. A hand
moves from the oldest to the newest; it passes an entry that was used since the hand was there last,
taking its mark away, and evicts one that was not. A hit moves nothing, and so needs no lock.

How much room is taken is asked of LMDB, in pages; nothing is counted twice. A page that has lost
some of its entries is still a page: so a write that finds too many evicts more bytes than it adds,
not until there are few enough, and over many writes pages empty out. Each write takes a bounded
number of steps.
"""

import struct

from cacheapp.backends.lmdb import records
from cacheapp.backends.lmdb.limits import PAGE
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.reference_bits import EVICTED, EXPIRED

_HAND = b"hand"
_PROBE = b"probe"
_POSITION = struct.Struct(">Q")
_STEPS = 512  # of the hand, until it takes what is there
_EXPIRED_AT_ONCE = 16
_EVICTED_AT_ONCE = 64
_LOOK_EVERY_S = 1.0
_FAR_OVER = 1.05
_CREDIT = 2048  # the part of the map that may be written before the room is looked at again


def before_growth(env: OpenEnvironment, transaction: Transaction, longer: int, more: int) -> bool:
    """Make room for so many bytes and entries; return whether anything was evicted."""
    evicted = 0
    most = env.limits.max_entries
    if more and most is not None:
        over = transaction.stat(env.entries)["entries"] + more - most
        if over > 0:
            evicted = evict(env, transaction, min(over, _EVICTED_AT_ONCE), 0)
    env.credit -= longer
    if env.credit <= 0:
        env.credit = env.limits.map_bytes // _CREDIT
        taken = used_bytes(env, transaction)
        usable = env.limits.usable_bytes
        if taken + longer > usable:
            hurry = 8 if taken > usable * _FAR_OVER else 2
            evicted += evict(env, transaction, 2, hurry * max(longer, env.credit))
    return evicted > 0


def used_bytes(env: OpenEnvironment, transaction: Transaction) -> int:
    """Return the bytes of all pages that hold something."""
    pages = 0
    for database in (env.entries, env.queue, env.deadlines):
        found = transaction.stat(database)
        pages += found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
    return pages * PAGE


def expire(
    env: OpenEnvironment, transaction: Transaction, now: float, most: int = _EXPIRED_AT_ONCE
) -> None:
    """Remove expired entries, so many at most; note when to look again."""
    env.due_s = now + _LOOK_EVERY_S
    for _ in range(most):
        due = records.earliest_deadline(env, transaction)
        if due is None:
            return
        if due[0] > now:
            env.due_s = min(env.due_s, due[0])
            return
        if records.expire_if_due(env, transaction, *due, now):
            env.reference_bits.counters[EXPIRED] += 1
    env.due_s = now


def evict(env: OpenEnvironment, transaction: Transaction, least: int, bytes_wanted: int) -> int:
    """Evict at least so many entries and bytes, by SIEVE, in bounded steps; return how many."""
    used, mask = env.reference_bits.bits, env.reference_bits.mask
    position = transaction.get(_HAND, None, env.meta)
    hand: int = _POSITION.unpack(position)[0] if position else 0
    evicted = freed = steps = 0
    while (evicted < least or freed < bytes_wanted) and evicted < _EVICTED_AT_ONCE:
        found = records.first_in_queue(env, transaction, hand)
        if found is None:
            if not hand:
                break  # there is nothing left
            hand = 0
            continue
        number, name = found
        steps += 1
        hand = number + 1
        if used[number & mask] and steps <= _STEPS:
            used[number & mask] = 0
            continue
        raw = transaction.get(name, b"", env.entries)
        records.remove(env, transaction, name, records.parse_header(raw))
        transaction.delete(_POSITION.pack(number), b"", env.queue)
        evicted += 1
        freed += len(raw) + len(name)
    if evicted:
        env.reference_bits.counters[EVICTED] += evicted
    transaction.put(_HAND, _POSITION.pack(hand), db=env.meta)
    return evicted


def make_room(env: OpenEnvironment, transaction: Transaction, bytes_wanted: int) -> None:
    """Evict many entries, where a write found no run of free pages, if it is entries that fill them.

    A map may also be full of pages that readers still see: no eviction would free those.
    """
    expire(env, transaction, env.now, _EVICTED_AT_ONCE)
    if used_bytes(env, transaction) + bytes_wanted > env.limits.usable_bytes:
        evict(env, transaction, 8, bytes_wanted)


def probe(env: OpenEnvironment, transaction: Transaction) -> None:
    """Write next to nothing, after what dead readers kept was freed: it shows if there are pages."""
    env.lmdb.reader_check()
    transaction.put(_PROBE, b"", db=env.meta)
