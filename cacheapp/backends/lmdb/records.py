"""How an entry stands in the environment, and what keeps its three records together.

Invariants, held by one write transaction for each change:

- `entries` has a record per key; its header names a sequence number. `queue` has a record per entry,
  from this number to the key, in the order in which entries came: SIEVE's queue. An overwritten
  entry keeps its place.
- An entry with a deadline has a record in `deadlines` at the time `indexed`, which is not later
  than its deadline: a lower bound. So overwriting an entry, or giving it a later deadline, writes
  no index; when the time comes, an entry that lives longer is put in again.

Times are seconds since the machine booted. A header of another format is a miss.
"""

import math
import struct
from typing import TypeAlias

from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction

FORMAT = 1
PLAIN, INT, SPECIAL = range(3)  # bytes; an integer; bytes that not everybody may see (`forms`)
_HEAD = "<BBxxIddQ"  # format, kind, bytes of the key within, deadline, indexed, number
HEAD = struct.Struct(_HEAD)
HEAD_BYTES = HEAD.size
pack_head = HEAD.pack
unpack_head = HEAD.unpack_from
order_of = struct.Struct("<16xdQ").unpack_from  # of a header: when it is indexed, and the number
pack_plain = struct.Struct(_HEAD + "B").pack  # a header, and the first byte of what follows it
NEVER = math.inf
NUMBER = struct.Struct(">Q")
_TIME = struct.Struct(">dQ")  # positive doubles sort as their bytes do
INT64 = struct.Struct("<q")
LEAST, MOST = -(2**63), 2**63 - 1
pack_int64 = INT64.pack
INT_HEAD = bytes([FORMAT, INT])
INT_BYTES = HEAD_BYTES + INT64.size  # of an entry with such an integer, whose name is its key
unpack_int = struct.Struct(_HEAD + "q").unpack_from  # the header of one, and the integer

Header: TypeAlias = tuple[int, int, int, float, float, int]


def parse_header(raw: bytes | None) -> Header | None:
    """Return the header of an entry, or `None` for one that this format does not know."""
    if raw is None or len(raw) < HEAD_BYTES or raw[0] != FORMAT:
        return None
    head: Header = unpack_head(raw)
    return head


def encode_payload(payload: Payload) -> tuple[int, bytes]:
    """Return kind and bytes of a payload."""
    if type(payload) is int:
        if LEAST <= payload <= MOST:
            return INT, pack_int64(payload)
        return INT, payload.to_bytes((payload.bit_length() + 8) // 8, "little", signed=True)
    assert isinstance(payload, bytes)  # noqa: S101 (for the type checker)
    return (SPECIAL if payload[:1] >= b"\xb0" else PLAIN), payload


def decode_payload(raw: bytes, head: Header) -> Payload:
    """Return the payload that follows a header."""
    body = raw[HEAD_BYTES + head[2] :]
    return int.from_bytes(body, "little", signed=True) if head[1] == INT else body


def next_sequence_number(env: OpenEnvironment, transaction: Transaction) -> int:
    """Return the number of an entry that joins the queue."""
    cursor = transaction.cursor(env.queue)
    return NUMBER.unpack(cursor.key())[0] + 1 if cursor.last() else 1


def index(
    env: OpenEnvironment, transaction: Transaction, number: int, before: float, deadline: float
) -> float:
    """Have the index name an earlier time; return it."""
    if before != NEVER:
        transaction.delete(_TIME.pack(before, number), b"", env.deadlines)
    transaction.put(_TIME.pack(deadline, number), b"", db=env.deadlines)
    return deadline


def remove(
    env: OpenEnvironment, transaction: Transaction, name: bytes, head: Header | None
) -> None:
    """Remove an entry with all its records."""
    if head is not None:
        transaction.delete(NUMBER.pack(head[5]), b"", env.queue)
        if head[4] != NEVER:
            transaction.delete(_TIME.pack(head[4], head[5]), b"", env.deadlines)
    transaction.delete(name, b"", env.entries)


# -- records by number -------------------------------------------------------------------------


def first_in_queue(
    env: OpenEnvironment, transaction: Transaction, number: int
) -> tuple[int, bytes] | None:
    """Return number and name of the first entry in the queue from `number` on."""
    cursor = transaction.cursor(env.queue)
    if not cursor.set_range(NUMBER.pack(number)):
        return None
    return NUMBER.unpack(cursor.key())[0], cursor.value()


def earliest_deadline(env: OpenEnvironment, transaction: Transaction) -> tuple[float, int] | None:
    """Return the earliest time of the index and whose it is."""
    cursor = transaction.cursor(env.deadlines)
    if not cursor.first():
        return None
    time_s, number = _TIME.unpack(cursor.key())
    return time_s, number


def expire_if_due(
    env: OpenEnvironment, transaction: Transaction, time_s: float, number: int, now: float
) -> bool:
    """Remove the entry of an index record if it has expired; else index it anew. Return which."""
    transaction.delete(_TIME.pack(time_s, number), b"", env.deadlines)
    name = transaction.get(NUMBER.pack(number), None, env.queue)
    raw = None if name is None else transaction.get(name, None, env.entries)
    head = parse_header(raw)
    if name is None or raw is None or head is None or head[5] != number or head[4] != time_s:
        return False
    if head[3] <= now:
        transaction.delete(NUMBER.pack(number), b"", env.queue)
        transaction.delete(name, b"", env.entries)
        return True
    if head[3] != NEVER:
        transaction.put(_TIME.pack(head[3], number), b"", db=env.deadlines)
    again = HEAD.pack(FORMAT, head[1], head[2], head[3], head[3], number)
    transaction.put(name, again + raw[HEAD_BYTES:], db=env.entries)
    return False
