"""Keep the cache below its limits: remove expired entries first, then those that SIEVE selects.

SIEVE (Zhang et al., NSDI 2024): entries form a queue in the order of insertion. A hand moves from
the oldest to the newest. It passes an entry that was used since its last visit, and clears the
entry's reference bit; it evicts an entry that was not used. A hit moves nothing, so it needs no
lock.

LMDB's page counts show the used space; there is no second account. A page that has lost some of its
entries still counts as a page. So a write above the limit evicts more bytes than it adds, instead
of evicting until the count is low enough, and over many writes pages become empty. Each write takes
a bounded number of steps.
"""

import struct

from cacheapp.backends.lmdb import records
from cacheapp.backends.lmdb.limits import PAGE
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.reference_bits import EVICTED, EXPIRED

_HAND = b"hand"
_PROBE = b"probe"
_POSITION = struct.Struct(">Q")
_MAX_STEPS = 512  # after so many, the hand evicts used entries too
_MAX_EXPIRED = 16
_MAX_EVICTED = 64
_EXPIRY_INTERVAL_S = 1.0
_FAR_OVER = 1.05
_CREDIT = 2048  # this fraction of the map may be written between two checks of the used space
_MAX_WRITES = (
    _MAX_EVICTED // 2
)  # as many writes at most, so that evictions keep up with small entries


def before_growth(
    env: OpenEnvironment, transaction: Transaction, added_bytes: int, added_entries: int
) -> bool:
    """Free space for so many bytes and entries; return True if any entry was evicted."""
    evicted = 0
    max_entries = env.limits.max_entries
    if added_entries and max_entries is not None:
        over = transaction.stat(env.entries)["entries"] + added_entries - max_entries
        if over > 0:
            evicted = evict(env, transaction, min(over, _MAX_EVICTED), 0)
    env.credit -= max(added_bytes, env.least_charge)
    if env.credit <= 0:
        env.credit = env.limits.map_bytes // _CREDIT
        env.least_charge = env.credit // _MAX_WRITES
        used = used_bytes(env, transaction)
        usable = env.limits.usable_bytes
        if used + added_bytes > usable:
            factor = 8 if used > usable * _FAR_OVER else 2
            evicted += evict(env, transaction, 2, factor * max(added_bytes, env.credit))
    return evicted > 0


def used_bytes(env: OpenEnvironment, transaction: Transaction) -> int:
    """Return the bytes of all pages in use."""
    pages = 0
    for database in (env.entries, env.queue, env.deadlines):
        found = transaction.stat(database)
        pages += found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
    return pages * PAGE


def expire(
    env: OpenEnvironment, transaction: Transaction, now: float, limit: int = _MAX_EXPIRED
) -> None:
    """Remove at most `limit` expired entries; note when to look again."""
    env.due_s = now + _EXPIRY_INTERVAL_S
    for _ in range(limit):
        due = records.earliest_deadline(env, transaction)
        if due is None:
            return
        if due[0] > now:
            env.due_s = min(env.due_s, due[0])
            return
        if records.expire_if_due(env, transaction, *due, now):
            env.reference_bits.counters[EXPIRED] += 1
    env.due_s = now


def evict(env: OpenEnvironment, transaction: Transaction, min_entries: int, min_bytes: int) -> int:
    """Evict at least so many entries and bytes by SIEVE, in bounded steps; return their number."""
    bits, mask = env.reference_bits.bits, env.reference_bits.mask
    position = transaction.get(_HAND, None, env.meta)
    hand: int = _POSITION.unpack(position)[0] if position else 0
    evicted = freed = steps = 0
    while (evicted < min_entries or freed < min_bytes) and evicted < _MAX_EVICTED:
        found = records.next_in_queue(env, transaction, hand)
        if found is None:
            if not hand:
                break  # the queue is empty
            hand = 0
            continue
        number, name = found
        steps += 1
        hand = number + 1
        if bits[number & mask] and steps <= _MAX_STEPS:
            bits[number & mask] = 0
            continue
        raw = transaction.get(name, b"", env.entries)
        records.remove(env, transaction, name, records.parse_header(raw))
        transaction.delete(records.SEQUENCE_KEY.pack(number), b"", env.queue)
        env.reference_bits.count_change(name)
        evicted += 1
        freed += len(raw) + len(name)
    if evicted:
        env.reference_bits.counters[EVICTED] += evicted
    transaction.put(_HAND, _POSITION.pack(hand), db=env.meta)
    return evicted


def free_space(env: OpenEnvironment, transaction: Transaction, wanted_bytes: int) -> None:
    """Evict many entries after a write found no run of free pages, if entries fill the map.

    The map may also be full of pages that readers still see: eviction does not free those.
    """
    expire(env, transaction, env.now, _MAX_EVICTED)
    if used_bytes(env, transaction) + wanted_bytes > env.limits.usable_bytes:
        evict(env, transaction, 8, wanted_bytes)


def probe(env: OpenEnvironment, transaction: Transaction) -> None:
    """Free what dead readers retained, and make a minimal write: it fails if there are no pages."""
    env.lmdb.reader_check()
    transaction.put(_PROBE, b"", db=env.meta)
