"""The primitives of `usual` as work inside one transaction, where all is as it mostly is."""

from cacheapp.backends.lmdb.entries import put
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction
from cacheapp.backends.lmdb.records import (
    FORMAT,
    HEAD_BYTES,
    INT_BYTES,
    INT_HEAD,
    LEAST,
    MOST,
    NEVER,
    PLAIN,
    order_of,
    pack_int64,
    pack_plain,
    unpack_int,
)


def put_plain(
    env: OpenEnvironment,
    transaction: Transaction,
    key: bytes,
    first: int,
    body: bytes,
    ttl: float | None,
) -> bool:
    """Do what `put` does with a payload of these, `PLAIN` bytes; return `False` if it is too large.

    In one piece where an entry takes the place of one that is no smaller, and ends no sooner than
    it is indexed: then neither room nor an index is to be looked after.
    """
    now = env.now
    if now < env.due_s:
        old = transaction.get(key, None, env.entries)
        if old is not None and len(old) > HEAD_BYTES + len(body) and old[0] == FORMAT:
            indexed, number = order_of(old)
            deadline = NEVER if ttl is None else now + ttl
            if deadline >= indexed:
                reference_bits = env.reference_bits
                reference_bits.bits[number & reference_bits.mask] = 1
                head = pack_plain(FORMAT, PLAIN, 0, deadline, indexed, number, first)
                transaction.put(key, head + body, True, True, False, env.entries)  # noqa: FBT003
                return True
    if len(body) >= env.limits.max_entry_bytes:
        return False
    put(env, transaction, (key, b""), bytes([first]) + body, ttl)
    return True


def incr_plain(
    env: OpenEnvironment, transaction: Transaction, name: bytes, delta: int
) -> int | None:
    """Do what `incr` does where number and sum have 64 bits; else return `None`, nothing is done."""
    raw = transaction.get(name, None, env.entries)
    if raw is None or len(raw) != INT_BYTES or raw[:2] != INT_HEAD:
        return None
    form = unpack_int(raw)
    total: int = form[6] + delta
    if form[3] <= env.now or not LEAST <= total <= MOST:
        return None
    reference_bits = env.reference_bits
    reference_bits.bits[form[5] & reference_bits.mask] = 1
    transaction.put(name, raw[:HEAD_BYTES] + pack_int64(total), True, True, False, env.entries)  # noqa: FBT003
    return total
