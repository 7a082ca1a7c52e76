"""One process's way to one Redis: sends a command, and knows what a failure lets one conclude.

The rule that all of it serves: **a retry never changes an outcome.** Redis runs a command only
when it has read all of it. So whatever fails before the last byte was handed to the kernel has
certainly not run, and is repeated. After that, only a command whose repetition changes nothing is
repeated (a read, or a write that finds its own work done); for any other one `OutcomeUnknown` tells
the caller. An answer that is an error is an answer: the command has not run.
"""

import enum
import random
import time
from typing import Any

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    InvalidResponse,
    MaxConnectionsError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)

from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.scripts import SCRIPT_NAMES, Script
from cacheapp.errors import OutcomeUnknown, StoreFull, StoreUnavailable

_PAUSES_S = (0.01, 0.05)  # before the second and the third attempt

_TROUBLE = (redis.ConnectionError, redis.TimeoutError, InvalidResponse)
_ANSWERS = (BusyLoadingError, AuthenticationError, AuthorizationError)  # yet `ConnectionError`s


class FailureKind(enum.Enum):
    """What a command does when it is run twice."""

    READ = "the same answer, and no effect at all"
    REPEATABLE = "the effect and the answer of once"
    WRITE = "something else"


_WRITE = FailureKind.WRITE


class _Failed(Exception):
    """An attempt without a usable answer; `may_have_run` says what is known about its effect."""

    def __init__(self, cause: BaseException, *, may_have_run: bool) -> None:
        super().__init__()
        self.cause = cause
        self.may_have_run = may_have_run

    def __str__(self) -> str:
        return f"{type(self.cause).__name__}: {self.cause}"


class CommandExecutor:
    """A pool of connections and a breaker. Threads share it; processes do not."""

    def __init__(self, pool: Any, breaker: CircuitBreaker, name: str) -> None:
        self.breaker = breaker
        self._pool = pool
        self._name = name

    def execute(self, *command: Any, kind: FailureKind = _WRITE) -> Any:
        """Return Redis's answer to one command.

        A lost answer is asked for again unless `kind` forbids it. Raises `StoreUnavailable`, `OutcomeUnknown`, `StoreFull`; `NoScriptError`
        and other errors of the command itself (`ResponseError`) as they are.
        """
        breaker = self.breaker
        if not breaker.closed:
            self._probe_or_raise()
        try:
            answer = self._attempt(command)
        except _Failed as failure:
            answer = self._retry(command, failure, kind)
        except ResponseError as exc:
            raise self._translated(exc) from exc
        if breaker.has_failures:
            breaker.record_success()
        return answer

    def run_script(self, script: Script, keys: int, *args: Any, kind: FailureKind = _WRITE) -> Any:
        """Return the answer of a script; the first `keys` of its arguments are keys."""
        try:
            return self.execute(b"EVALSHA", script.sha, keys, *args, kind=kind)
        except NoScriptError:  # so it has not run; EVAL also makes Redis remember it
            return self.execute(b"EVAL", script.text, keys, *args, kind=kind)

    # -- one attempt -------------------------------------------------------------------------

    def _attempt(self, command: tuple[Any, ...], *, probing: bool = False) -> Any:
        """Send the command and return its answer; raise `_Failed` or the answer's error.

        Invariant: a connection goes back to the pool only after its answer was read whole; on
        anything else, a `KeyboardInterrupt` or `SystemExit` included, it is disconnected first.
        """
        connection = self._connection(probing=probing)
        may_have_run = False
        try:
            if connection.health_check_interval:
                connection.check_health()
            packed = connection.pack_command(*command)
            try:
                connection.send_packed_command(packed, check_health=False)
            except redis.TimeoutError:
                # The built-in error behind it may also be a signal handler's, raised after the
                # last byte was gone.
                may_have_run = True
                raise
            may_have_run = True
            return connection.read_response(disable_decoding=True)
        except ResponseError as exc:
            if _is_read_only(exc):
                connection.disconnect()  # the next connection asks Sentinel who is primary now
                raise self._failed(exc, may_have_run=False) from exc
            raise
        except BaseException as exc:
            connection.disconnect()
            if isinstance(exc, _TROUBLE):
                raise self._failed(exc, may_have_run=may_have_run and _lost(exc)) from exc
            raise
        finally:
            self._pool.release(connection)

    def _connection(self, *, probing: bool) -> Any:
        try:
            connection = self._pool.get_connection()
        except MaxConnectionsError as exc:
            raise StoreUnavailable(f"{self._name} was not asked: {exc}") from exc
        except (redis.RedisError, OSError) as exc:
            raise self._failed(exc, may_have_run=False) from exc
        if not self.breaker.closed and not probing:
            self._pool.release(connection)  # it opened while this call waited for a connection
            self._probe_or_raise()
            return self._connection(probing=False)
        return connection

    def _failed(self, exc: BaseException, *, may_have_run: bool) -> _Failed:
        failure = _Failed(exc, may_have_run=may_have_run)
        self.breaker.record_failure(str(failure))
        return failure

    # -- after a failure ---------------------------------------------------------------------

    def _retry(self, command: tuple[Any, ...], failure: _Failed, kind: FailureKind) -> Any:
        """Repeat what may be repeated, a few times and not for long; else raise what is known."""
        may_have_run = failure.may_have_run  # any of the attempts
        for pause_s in _PAUSES_S:
            if may_have_run and kind is FailureKind.WRITE:
                break
            if not self.breaker.closed or isinstance(failure.cause, redis.TimeoutError):
                break  # who has waited once has waited enough
            # Jitter: the threads that a restart cut off would all come back in one moment.
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
            try:
                return self._attempt(command)
            except _Failed as exc:
                failure = exc
                may_have_run = may_have_run or exc.may_have_run
            except ResponseError as exc:
                raise self._translated(exc) from exc
        if may_have_run and kind is not FailureKind.READ:
            raise OutcomeUnknown(
                f"{_named(command)} was sent to {self._name} and its answer was lost ({failure}): "
                "it may have happened or may yet; "
                + (
                    "it was not repeated"
                    if kind is FailureKind.WRITE
                    else "repeating it did not help"
                )
            ) from failure.cause
        raise StoreUnavailable(
            f"{_named(command)} did not happen: {self._name} failed ({failure})"
        ) from failure.cause

    def _probe_or_raise(self) -> None:
        """Return when Redis may be asked; raise `StoreUnavailable` at once when it is known down."""
        if not self.breaker.admit():
            return
        try:
            self._attempt((b"PING",), probing=True)
        except _Failed as failure:
            raise StoreUnavailable(f"{self._name} failed a probe ({failure})") from failure.cause
        except ResponseError:
            pass  # an answer is an answer
        except BaseException as exc:
            self.breaker.record_failure(type(exc).__name__)
            raise
        self.breaker.record_success()

    def _translated(self, exc: ResponseError) -> Exception:
        """Return what an error answer means to the caller: the command has not run."""
        text = str(exc)
        if isinstance(exc, redis.OutOfMemoryError) or "OOM command not allowed" in text:
            return StoreFull(f"{self._name} has no memory left for it; nothing was stored")
        if isinstance(exc, NoScriptError):
            return exc
        return StoreUnavailable(f"{self._name} refused: {text}; nothing was changed")


def _lost(exc: BaseException) -> bool:
    """Return whether the answer was lost; some of redis-py's `ConnectionError`s are answers."""
    return not (
        isinstance(exc, _ANSWERS)
        or isinstance(exc.__context__, ReadOnlyError)  # Sentinel's connections replace it
        or str(exc).startswith("max number of clients")
    )


def _is_read_only(exc: ResponseError) -> bool:
    return isinstance(exc, ReadOnlyError) or "READONLY You can't write" in str(exc)


def _named(command: tuple[Any, ...]) -> str:
    """Return the command and its first key, for people; never a value."""
    if command[0] in {b"EVALSHA", b"EVAL"}:
        name, keys = SCRIPT_NAMES[command[1]], command[3:]
    else:
        name, keys = command[0].decode(), command[1:]
    key = keys[0] if keys else None
    return f"{name} {key.decode(errors='replace')!r}" if isinstance(key, bytes) else name
