"""What a key may hold instead of a plain payload: a lease, or an entry with a soft deadline.

Pure. Both are stored under the key itself, in place of the value: a write, delete or clear of the
key voids the lease or replaces the entry in the same atomic step, at no cost. In return, primitives
that do not need the value (`add`, `has`, `touch` …) must check whether the entry is visible. The
deadline that a store keeps is the hard one: past it, there is no entry.
"""

import secrets
import struct

from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.backends.local.process_identity import HOLDER_BYTES

Payload = bytes | int

LEASE = 0xB0  # first bytes; a value's is 0xA?, an integer's an ASCII digit or sign
SOFT = 0xC0
_TOKEN_BYTES = 8
LEASE_BYTES = 1 + HOLDER_BYTES + _TOKEN_BYTES
_SOFT_HEAD = struct.Struct(">BQ8s?")  # marker, deadline in ms since 1970, nonce, inner is an int
SOFT_HEAD_BYTES = _SOFT_HEAD.size
_LATEST_MS = 2**53 - 1  # Lua on a Redis counts no further; it is the year 287396
HEAD_BYTES = (
    max(LEASE_BYTES, SOFT_HEAD_BYTES) + 1
)  # enough for `is_visible`: a longer payload is not a lease
SOFT_DEADLINE = slice(1, 9)  # its position, for stores that read it on a server

# The key of an entry plus this suffix holds the lease for refreshing the entry once it is past its
# soft deadline. No key has it by accident; `scan` and `clear` treat it as a key of that version.
REFRESH_SUFFIX = "\x1frefresh"


def new_lease(holder: bytes) -> bytes:
    """Return a unique lease. `holder` identifies its process to a local store."""
    assert len(holder) == HOLDER_BYTES  # noqa: S101 (a bug in a store)
    return bytes([LEASE]) + holder + secrets.token_bytes(_TOKEN_BYTES)


def is_lease(payload: Payload | None) -> bool:
    """Return True if the payload is a lease."""
    return type(payload) is bytes and len(payload) == LEASE_BYTES and payload[0] == LEASE


def holder_of(lease: bytes) -> bytes:
    """Return the `holder` of the lease."""
    return lease[1 : 1 + HOLDER_BYTES]


def add_soft_deadline(payload: Payload, deadline_s: float) -> bytes:
    """Return an entry that is visible until the deadline (seconds since 1970), and stale after it.

    A nonce makes each of them unique, so that an equal payload means that nothing was written in
    between.
    """
    whole = type(payload) is int
    inner = str(payload).encode() if whole else payload
    assert isinstance(inner, bytes)  # noqa: S101 (for the type checker)
    deadline_ms = int(max(0, min(deadline_s * 1000, _LATEST_MS)))
    head = _SOFT_HEAD.pack(SOFT, deadline_ms, secrets.token_bytes(8), whole)
    return head + inner


def has_soft_deadline(payload: Payload | None) -> bool:
    """Return True if the entry has a soft deadline, past or not."""
    return type(payload) is bytes and payload[:1] == b"\xc0" and len(payload) >= _SOFT_HEAD.size


def unwrap(payload: bytes) -> tuple[Payload, float]:
    """Return the arguments of `add_soft_deadline`: the payload, the deadline in seconds since 1970.

    Raises `ValueError` for bytes that it never returns, which another program may have written.
    """
    _marker, deadline_ms, _nonce, whole = _SOFT_HEAD.unpack_from(payload)
    inner = payload[_SOFT_HEAD.size :]
    return (int(inner) if whole else inner), deadline_ms / 1000


def soft_deadline_s(payload: bytes) -> float:
    """Return the soft deadline of an entry; its head is enough."""
    return int.from_bytes(payload[SOFT_DEADLINE], "big") / 1000


def holds_int(payload: bytes) -> bool:
    """Return True if an entry with a soft deadline holds an integer; its head is enough."""
    return payload[SOFT_HEAD_BYTES - 1] == 1


def keep_soft_deadline(payload: Payload, like: Payload) -> Payload:
    """Return `payload` with the soft deadline of `like`, if it has one."""
    return (
        add_soft_deadline(payload, unwrap(like)[1])
        if has_soft_deadline(like) and type(like) is bytes
        else payload
    )


def visible(payload: Payload | None, now_s: float) -> Payload | None:
    """Return the visible payload; `None` for a lease and for an entry past its soft deadline."""
    if payload is None or type(payload) is int or payload[:1] < b"\xb0":  # type: ignore[index]
        return payload
    if is_lease(payload):
        return None
    if type(payload) is bytes and has_soft_deadline(payload):
        try:
            inner, deadline_s = unwrap(payload)
        except ValueError as exc:
            if is_interruption(exc):
                raise
            return payload  # another program's: no codec accepts it
        return inner if now_s < deadline_s else None
    return payload


def is_visible(head: Payload, now_s: float) -> bool:
    """Return True if a payload is visible; its first HEAD_BYTES are enough."""
    if type(head) is int or head[:1] < b"\xb0":  # type: ignore[index]
        return True
    if is_lease(head):
        return False
    return not has_soft_deadline(head) or now_s < soft_deadline_s(head)  # type: ignore[arg-type]
