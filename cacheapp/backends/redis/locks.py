"""The locks of RedisStore, with fencing tokens.

A lock is two keys: the lock itself, which holds its holder's token and nonce and expires with the
lock, and the fence, which holds the last token that was issued and never expires.

Invariant: a token is larger than every token issued for the name before. The script that issues one
takes the larger of "the last + 1" and the server's clock in microseconds. As long as the fence
exists, this holds whatever the clock does. If the fence is lost (FLUSHALL, eviction under an
`allkeys-…` policy, a restart of a server without persistence, a failover), the clock has advanced by
more than the number of tokens issued, unless it was set back: **a lost fence together with a
server clock that is set back before the last token is the one case in which a token may repeat.**

An `acquire` without a reply raises `OutcomeUnknown` and is not repeated. The caller then does
not hold the lock and has no token. The lock may have been given to this call, so it is cancelled by
the call's nonce, as is one that a signal handler interrupts. The command may still be on its way
to the server: a third key forbids it, for a minute. Where the server does not reply in time, nothing is
cancelled, and the lock may be unavailable until the requested TTL has passed. Trying again is safe
at any time.
"""

import contextlib
import os
from collections.abc import Callable

import redis

from cacheapp.backends.redis import scripts
from cacheapp.backends.redis.encoding import encode_key, ttl_ms_or_0
from cacheapp.backends.redis.executor import Executor, FailureKind, is_of_handler
from cacheapp.errors import CacheappError, StoreFull, StoreUnavailable

_FORBIDDEN_MS = 60_000


class RedisLocks:
    """The lock primitives of `Store`."""

    def __init__(
        self, executor: Executor, keys: Callable[[str], tuple[bytes, bytes]] | None = None
    ) -> None:
        self._executor = executor
        self._keys = keys or _keys  # of a lock and of its fence; that of the lock begins all others

    def acquire(self, name: str, ttl: float | None, note: Callable[[int], None]) -> int | None:
        """Acquire the lock if it is free; the module describes what a lost reply means.

        `note` is called with the token. If this raises before, the lock is not held.
        """
        nonce = os.urandom(8).hex().encode()
        keys = (*self._keys(name), self._cancelled(name, nonce))
        try:
            reply = self._executor.run_script(
                scripts.ACQUIRE_LOCK, len(keys), *keys, ttl_ms_or_0(ttl), nonce
            )
            if reply is None:
                return None
            token = int(reply)
            note(token)
        except BaseException as exc:
            has_not_run = isinstance(exc, StoreUnavailable | StoreFull) and not is_of_handler(exc)
            # After a time-out, the caller would wait twice.
            if not has_not_run and not isinstance(exc.__cause__, redis.TimeoutError):
                self._cancel(name, nonce)
            raise
        return token

    def _cancel(self, name: str, nonce: bytes) -> None:
        """Free the lock if the acquisition with this nonce has it, or may still get it."""
        keys = (self._keys(name)[0], self._cancelled(name, nonce))
        with contextlib.suppress(CacheappError):
            self._executor.run_script(
                scripts.CANCEL_LOCK, 2, *keys, nonce, _FORBIDDEN_MS, kind=FailureKind.REPEATABLE
            )

    def renew(self, name: str, token: int, ttl: float | None) -> bool:
        """Restart the lock's TTL if `token` still holds it; return True if it did."""
        args = (self._keys(name)[0], token, ttl_ms_or_0(ttl))
        kind = FailureKind.REPEATABLE
        return bool(self._executor.run_script(scripts.RENEW_LOCK, 1, *args, kind=kind))

    def release(self, name: str, token: int) -> bool:
        """Free the lock if `token` still holds it; return True if it did."""
        return bool(self._executor.run_script(scripts.RELEASE_LOCK, 1, self._keys(name)[0], token))

    def token(self, name: str) -> int | None:
        """Return the token that holds the lock, or `None` if the lock is free."""
        reply = self._executor.execute(b"GET", self._keys(name)[0], kind=FailureKind.READ)
        return None if reply is None else int(reply.partition(b" ")[0])

    def _cancelled(self, name: str, nonce: bytes) -> bytes:
        return self._keys(name)[0] + b"\x1f" + nonce


def _keys(name: str) -> tuple[bytes, bytes]:
    """Return the keys of the lock and of its fence.

    `clear` and `delete_pattern` remove keys of the form `PREFIX:<version>:…`, for any PREFIX. In
    these keys a control character precedes each colon, so none has that form, and the lock's name
    remains readable.
    """
    start = name.replace(":", "\x1f:")
    return encode_key(f"{start}\x1flock"), encode_key(f"{start}\x1ffence")
