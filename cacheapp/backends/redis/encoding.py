"""Convert keys, payloads and times to what Redis stores, and back."""

import re

from cacheapp import clock
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.errors import ValueRefused

# Redis closes the connection of a client that sends more (the default `proto-max-bulk-len`). That
# would look like a failing server, and would open the circuit breaker for all callers.
_LARGEST_VALUE = 512 * 2**20
_LONGEST_TTL_MS = 2**60  # Redis adds it to the clock, in 64 bits
_integer = re.compile(rb"-?[1-9][0-9]*|0").fullmatch
_glob_special = re.compile(r"[*?\[\]\\]")


def encode_key(key: str) -> bytes:
    """Return the key as bytes."""
    return key.encode("utf-8", "surrogatepass")


def decode_key(key: bytes) -> str:
    """Return the key that `encode_key` was given."""
    return key.decode("utf-8", "surrogatepass")


def check_size(length: int) -> None:
    """Raise `ValueRefused` if no value may have so many bytes."""
    if length > _LARGEST_VALUE:
        raise ValueRefused(
            f"Redis accepts values of at most {_LARGEST_VALUE} bytes; found {length}; "
            "nothing was stored"
        )


def encode_payload(payload: Payload) -> bytes:
    """Return the payload as Redis stores it: integers in decimal, which INCRBY can count."""
    if type(payload) is bytes:
        if len(payload) > _LARGEST_VALUE:
            check_size(len(payload))
        return payload
    try:
        return str(payload).encode()
    except ValueError as exc:  # Python limits the number of digits that it converts
        if is_interruption(exc):
            raise
        raise ValueRefused(f"Redis stores integers in decimal: {exc}; nothing was stored") from exc


def decode_payload(stored: bytes) -> Payload:
    """Return an int for exactly what `encode_payload` writes for ints; `int` accepts more."""
    if stored[:1] < b":" and _integer(stored):
        try:
            return int(stored)
        except ValueError as exc:
            if is_interruption(exc):
                raise
            # Thousands of digits: not written by `encode_payload`.
    return stored


def ttl_ms(ttl: float) -> int:
    """Return the TTL in milliseconds, minus one because Redis serves an entry through the last.

    Redis keeps the deadline in whole milliseconds and expires what is older than that; without the
    subtraction an entry could be served up to 1 ms late. A TTL below 2 ms becomes 1 ms, the
    shortest that Redis accepts.
    """
    return max(1, int(min(ttl * 1000, _LONGEST_TTL_MS)) - 1)


def ttl_ms_or_0(ttl: float | None) -> int:
    """Return the TTL as the scripts expect it: 0 for none."""
    return 0 if ttl is None else ttl_ms(ttl)


def now_ms() -> int:
    """Return the whole milliseconds since 1970, against which soft deadlines are checked."""
    return int(clock.wall_s() * 1000)


def escape_glob(text: str) -> str:
    """Return a glob that matches only the text."""
    return _glob_special.sub(r"\\\g<0>", text)
