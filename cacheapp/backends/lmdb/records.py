"""How an entry is stored in the environment, and what keeps its three records consistent.

Invariants, each kept by one write transaction per change:

- `entries` has one record per key, with a sequence number in its header. `queue` has one record
  per entry, from this number to the key, in the order of insertion: SIEVE's queue. An overwritten
  entry keeps its position.
- An entry with a deadline has a record in `deadlines`, at the time `indexed`, which is not later
  than the deadline: a lower bound. So overwriting an entry, or extending its deadline, writes no
  index. When that time comes, an entry with a later deadline is indexed again.

Times are seconds since the machine booted. An entry with an unknown format counts as a miss.
"""

import math
import struct
from typing import Final, TypeAlias

from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.lmdb.open_environment import OpenEnvironment, Transaction

FORMAT = 1
# Bytes; an integer; bytes that not every reader may see (`lease_format`).
PLAIN, INT, SPECIAL = range(3)
_HEADER = "<BBxxIddQ"  # format, kind, length of the key inside, deadline, indexed, sequence number
HEADER = struct.Struct(_HEADER)
HEADER_BYTES = HEADER.size
# Positions in an unpacked header:
KIND: Final = 1
KEY_LENGTH: Final = 2
DEADLINE: Final = 3
INDEXED: Final = 4
SEQUENCE: Final = 5
pack_header = HEADER.pack
unpack_header = HEADER.unpack_from
unpack_indexed = struct.Struct("<16xdQ").unpack_from  # `indexed` and sequence number of a header
pack_plain = struct.Struct(_HEADER + "B").pack  # a header, and the first byte of the payload
NEVER = math.inf
SEQUENCE_KEY = struct.Struct(">Q")
_DEADLINE_KEY = struct.Struct(">dQ")  # positive doubles sort like their bytes
INT64 = struct.Struct("<q")
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
pack_int64 = INT64.pack
INT_START = bytes([FORMAT, INT])
INT_BYTES = HEADER_BYTES + INT64.size  # size of an entry with a 64-bit integer and no key inside
unpack_int = struct.Struct(_HEADER + "q").unpack_from  # the header of one, and the integer

Header: TypeAlias = tuple[int, int, int, float, float, int]


def parse_header(raw: bytes | None) -> Header | None:
    """Return the header of an entry, or `None` if its format is unknown."""
    if raw is None or len(raw) < HEADER_BYTES or raw[0] != FORMAT:
        return None
    header: Header = unpack_header(raw)
    return header


def encode_payload(payload: Payload) -> tuple[int, bytes]:
    """Return kind and bytes of a payload."""
    if type(payload) is int:
        if INT64_MIN <= payload <= INT64_MAX:
            return INT, pack_int64(payload)
        return INT, payload.to_bytes((payload.bit_length() + 8) // 8, "little", signed=True)
    assert isinstance(payload, bytes)  # noqa: S101 (for the type checker)
    return (SPECIAL if payload[:1] >= b"\xb0" else PLAIN), payload


def decode_payload(raw: bytes, header: Header) -> Payload:
    """Return the payload that follows a header."""
    body = raw[HEADER_BYTES + header[KEY_LENGTH] :]
    return int.from_bytes(body, "little", signed=True) if header[KIND] == INT else body


def next_sequence_number(env: OpenEnvironment, transaction: Transaction) -> int:
    """Return the sequence number for an entry at the end of the queue."""
    cursor = transaction.cursor(env.queue)
    return SEQUENCE_KEY.unpack(cursor.key())[0] + 1 if cursor.last() else 1


def index_deadline(
    env: OpenEnvironment, transaction: Transaction, number: int, before: float, deadline: float
) -> None:
    """Move an entry's index record from the time `before`, if not `NEVER`, to its deadline."""
    if before != NEVER:
        transaction.delete(_DEADLINE_KEY.pack(before, number), b"", env.deadlines)
    transaction.put(_DEADLINE_KEY.pack(deadline, number), b"", db=env.deadlines)


def remove(
    env: OpenEnvironment, transaction: Transaction, name: bytes, header: Header | None
) -> None:
    """Remove an entry with all its records."""
    if header is not None:
        transaction.delete(SEQUENCE_KEY.pack(header[SEQUENCE]), b"", env.queue)
        if header[INDEXED] != NEVER:
            key = _DEADLINE_KEY.pack(header[INDEXED], header[SEQUENCE])
            transaction.delete(key, b"", env.deadlines)
    transaction.delete(name, b"", env.entries)


# -- records by sequence number ------------------------------------------------------------------


def next_in_queue(
    env: OpenEnvironment, transaction: Transaction, number: int
) -> tuple[int, bytes] | None:
    """Return sequence number and name of the first entry in the queue at or after `number`."""
    cursor = transaction.cursor(env.queue)
    if not cursor.set_range(SEQUENCE_KEY.pack(number)):
        return None
    return SEQUENCE_KEY.unpack(cursor.key())[0], cursor.value()


def earliest_deadline(env: OpenEnvironment, transaction: Transaction) -> tuple[float, int] | None:
    """Return time and sequence number of the first record in the index of deadlines."""
    cursor = transaction.cursor(env.deadlines)
    if not cursor.first():
        return None
    time_s, number = _DEADLINE_KEY.unpack(cursor.key())
    return time_s, number


def expire_if_due(
    env: OpenEnvironment, transaction: Transaction, time_s: float, number: int, now: float
) -> bool:
    """Remove the entry of an index record if it has expired, else index it again.

    Return True if the entry was removed.
    """
    transaction.delete(_DEADLINE_KEY.pack(time_s, number), b"", env.deadlines)
    name = transaction.get(SEQUENCE_KEY.pack(number), None, env.queue)
    raw = None if name is None else transaction.get(name, None, env.entries)
    header = parse_header(raw)
    if name is None or raw is None or header is None:
        return False
    if header[SEQUENCE] != number or header[INDEXED] != time_s:
        return False
    _, kind, key_length, deadline, _, _ = header
    if deadline <= now:
        transaction.delete(SEQUENCE_KEY.pack(number), b"", env.queue)
        transaction.delete(name, b"", env.entries)
        env.reference_bits.count_change(name)
        return True
    if deadline != NEVER:
        transaction.put(_DEADLINE_KEY.pack(deadline, number), b"", db=env.deadlines)
    again = pack_header(FORMAT, kind, key_length, deadline, deadline, number)
    transaction.put(name, again + raw[HEADER_BYTES:], db=env.entries)
    return False
