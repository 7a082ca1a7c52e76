"""The locks of RedisStore.

A lock is two keys: the lock itself, with its holder's token and the holder's time as its deadline, and
the fence, which holds the last token that was given and has no deadline.

Invariant: a token is larger than every one that was given for the name before. The script that
gives one takes the larger of "the last + 1" and the server's clock in microseconds. While the fence
is there, that holds whatever the clock does. Where the fence is lost (FLUSHALL, eviction under an
`allkeys-…` policy, a restart of a server that keeps nothing, a failover), the clock has moved on by
more than tokens were given, unless it was set back: **a fence that is lost while the server's clock
is set back before the last token is the one case in which a token may return.**

An `acquire_lock` whose answer was lost raises `OutcomeUnknown` and is not repeated. What the caller
then knows: it does not hold the lock, and has no token; perhaps nobody can have it until the TTL that it
asked for is over, because it was given to this call; trying again is safe at any time.
"""

from cacheapp.backends.core.store import Store
from cacheapp.backends.redis import scripts
from cacheapp.backends.redis.encoding import encode_key, ttl_ms_or_0
from cacheapp.backends.redis.executor import CommandExecutor, FailureKind


class RedisLocks(Store):
    """Mix-in: the lock primitives of `Store`."""

    _executor: CommandExecutor

    def acquire_lock(self, name: str, ttl: float | None) -> int | None:
        """Take the lock if it is free; see the module for what a lost answer means."""
        answer = self._executor.run_script(scripts.ACQUIRE_LOCK, 2, *_keys(name), ttl_ms_or_0(ttl))
        return None if answer is None else int(answer)

    def renew_lock(self, name: str, token: int, ttl: float | None) -> bool:
        """Let the lock's time begin anew if the token still holds it; return whether it did."""
        asked = (_keys(name)[0], token, ttl_ms_or_0(ttl))
        return bool(
            self._executor.run_script(scripts.RENEW_LOCK, 1, *asked, kind=FailureKind.REPEATABLE)
        )

    def release_lock(self, name: str, token: int) -> bool:
        """Free the lock if the token still holds it; return whether it did."""
        return bool(self._executor.run_script(scripts.RELEASE_LOCK, 1, _keys(name)[0], token))

    def lock_token(self, name: str) -> int | None:
        """Return the token that holds the lock, or `None` where it is free."""
        found = self._executor.execute(b"GET", _keys(name)[0], kind=FailureKind.READ)
        return None if found is None else int(found)


def _keys(name: str) -> tuple[bytes, bytes]:
    """Return the keys of the lock and of its fence.

    What `clear` and `delete_pattern` remove has the form `PREFIX:<version>:…`, for any PREFIX. Here no
    colon follows a version, because a control character stands before each; yet one can read whose
    lock it is.
    """
    start = name.replace(":", "\x1f:")
    return encode_key(f"{start}\x1flock"), encode_key(f"{start}\x1ffence")
