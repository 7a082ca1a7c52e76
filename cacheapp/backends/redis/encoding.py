"""How keys, payloads and times are written for Redis, and read back."""

import re

from cacheapp import clock
from cacheapp.backends.core.lease_format import Payload
from cacheapp.errors import ValueRefused

# Redis cuts the connection of who sends more (`proto-max-bulk-len`, as it is by default), which
# would look like a failing server, and open the breaker for everybody.
_LARGEST_VALUE = 512 * 2**20
_LONGEST_TTL_MS = 2**60  # Redis adds it to the clock, in 64 bits
_integer = re.compile(rb"-?[1-9][0-9]*|0").fullmatch
_glob_special = re.compile(r"[*?\[\]\\]")


def encode_key(key: str) -> bytes:
    """Return the key as bytes."""
    return key.encode("utf-8", "surrogatepass")


def decode_key(key: bytes) -> str:
    """Return the key as `encode_key` got it."""
    return key.decode("utf-8", "surrogatepass")


def encode_payload(payload: Payload) -> bytes:
    """Return the payload as it stands in Redis: integers as decimals, which INCRBY counts."""
    if type(payload) is bytes:
        if len(payload) > _LARGEST_VALUE:
            raise ValueRefused(
                f"Redis takes values of at most {_LARGEST_VALUE} bytes; found {len(payload)}; "
                "nothing was stored"
            )
        return payload
    try:
        return str(payload).encode()
    except ValueError as exc:  # Python refuses to write out thousands of digits
        raise ValueRefused(f"Redis keeps integers as decimals: {exc}") from exc


def decode_payload(found: bytes) -> Payload:
    """Return an int for what `encode_payload` writes for ints, and for nothing else that `int` accepts."""
    if found[:1] < b":" and _integer(found):
        try:
            return int(found)
        except ValueError:
            pass  # thousands of digits: nothing that `encode_payload` wrote
    return found


def ttl_ms(ttl: float) -> int:
    """Return the TTL in Redis's milliseconds: one less, for Redis serves an entry through its last.

    It keeps the deadline in whole milliseconds and expires what is older than that; without the
    subtraction an answer could come up to 1 ms late. A TTL below 2 ms becomes Redis's shortest.
    """
    return max(1, int(min(ttl * 1000, _LONGEST_TTL_MS)) - 1)


def ttl_ms_or_0(ttl: float | None) -> int:
    """Return the TTL as the scripts take it: 0 for none."""
    return 0 if ttl is None else ttl_ms(ttl)


def now_ms() -> int:
    """Return the whole milliseconds since 1970, by which soft deadlines are judged."""
    return int(clock.wall_s() * 1000)


def escape_glob(text: str) -> str:
    """Return a glob that matches the text alone."""
    return _glob_special.sub(r"\\\g<0>", text)
