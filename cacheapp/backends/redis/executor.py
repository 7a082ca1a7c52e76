"""Send commands to one Redis, and decide after a failure whether a command may be repeated.

The rule is: **a retry never changes an outcome.** Redis runs a command only after it has read all of
it. A command that failed before its last byte was handed to the kernel has therefore not run, and
is repeated. After that point, a command is repeated only if a second run changes nothing: a read, or
a write that detects its own effect. For any other command the caller gets `OutcomeUnknown`. An error
reply is a reply: the command has not run.

Invariant: `StoreUnavailable`, `StoreFull`, and the replies that make a caller send the command in another
way or to another server (`NoScriptError`, the redirections of a cluster) are raised only if no attempt may
have run. An error reply to a repetition says nothing about the attempt before, so it is `OutcomeUnknown`.
"""

import abc
import enum
import random
import sys
import time
from typing import Any

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    InvalidResponse,
    MaxConnectionsError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)

from cacheapp.backends.local.interruptions import raised_by_handler
from cacheapp.backends.redis import connection_advice
from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.connection_pool import borrower
from cacheapp.backends.redis.scripts import SCRIPT_NAMES, TEXTS, Script
from cacheapp.errors import OutcomeUnknown, StoreFull, StoreUnavailable

_PAUSES_S = (0.01, 0.05)  # before the second and the third attempt

CONNECTION_ERRORS = (redis.ConnectionError, redis.TimeoutError, InvalidResponse)
# These are replies of the server, though redis-py derives them from `ConnectionError`.
ERROR_REPLIES = (BusyLoadingError, AuthenticationError, AuthorizationError)


class FailureKind(enum.Enum):
    """What the loss of a command's reply means: the effect of running the command twice."""

    READ = "the same reply and no effect"
    REPEATABLE = "the effect and the reply of running it once"
    WRITE = "possibly another effect or reply"


_WRITE = FailureKind.WRITE


class AttemptFailed(Exception):
    """An attempt without a usable reply; `may_have_run` is what is known about its effect."""

    def __init__(self, cause: BaseException, *, may_have_run: bool, advice: str = "") -> None:
        super().__init__()
        self.cause = cause
        self.may_have_run = may_have_run
        self.advice = advice

    def __str__(self) -> str:
        text = str(self.cause)
        if self.advice:
            text = f"{text.removesuffix('.')}{self.advice}"
        return f"{type(self.cause).__name__}: {text}"


class Executor(abc.ABC):
    """What sends the commands of a store: to one server, or to that node of a cluster that has the key."""

    @abc.abstractmethod
    def execute(self, *command: Any, kind: FailureKind = _WRITE, also: tuple[Any, ...] = ()) -> Any:
        """See `CommandExecutor.execute`."""

    @property
    @abc.abstractmethod
    def condition(self) -> str:
        """Whether the server is taken to be up, in a few words."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the idle connections."""

    def run_script(self, script: Script, keys: int, *args: Any, kind: FailureKind = _WRITE) -> Any:
        """Return the reply of a script; the first `keys` of its arguments are keys."""
        try:
            return self.execute(b"EVALSHA", script.sha, b"%d" % keys, *args, kind=kind)
        except NoScriptError:  # it has not run; EVAL also makes Redis cache the script
            return self.execute(b"EVAL", script.text, b"%d" % keys, *args, kind=kind)


class CommandExecutor(Executor):
    """A connection pool and a circuit breaker, shared by threads but not by processes."""

    def __init__(self, pool: Any, breaker: CircuitBreaker, name: str) -> None:
        self.breaker = breaker
        self.pool = pool
        self._name = name

    @property
    def condition(self) -> str:
        """The state of the breaker."""
        return f"breaker {self.breaker.state.value}"

    def close(self) -> None:
        """Close the idle connections."""
        self.pool.disconnect(inuse_connections=False)

    def execute(self, *command: Any, kind: FailureKind = _WRITE, also: tuple[Any, ...] = ()) -> Any:
        """Return Redis's reply to one command; with `also`, the replies to both.

        Other commands may be executed between the two.
        If a reply is lost, the command is repeated unless `kind` forbids it. Raises
        `StoreUnavailable`, `OutcomeUnknown`, `StoreFull`, and `NoScriptError` as it is.
        """
        breaker = self.breaker
        if not breaker.closed:
            self._probe_or_raise()
        try:
            reply = self._attempt(command, also)
        except AttemptFailed as failure:
            reply = self._retry(command, failure, kind, also)
        except ResponseError as exc:
            if is_of_handler(exc):
                raise
            found = self._translated(exc)
            raise found from (None if found is exc else exc)  # no exception is its own cause
        if breaker.has_failures:
            breaker.record_success()
        return reply

    # -- one attempt -------------------------------------------------------------------------

    @borrower
    def _attempt(
        self, command: tuple[Any, ...], also: tuple[Any, ...] = (), *, probing: bool = False
    ) -> Any:
        """Send the command and return its reply; raise `AttemptFailed` or the error of the reply.

        Invariant: a connection returns to the pool only after its reply was read completely. After
        any exception, including `KeyboardInterrupt` and `SystemExit`, it is disconnected first.

        redis-py replaces an `OSError` by an error of its own, also one that a signal handler raised;
        that one is raised here.
        """
        handled_before = sys.exception()
        connection = self._connection(probing=probing)
        may_have_run = False
        try:
            if connection.health_check_interval:
                connection.check_health()
            packed = _packed(connection, command, also)
            try:
                connection.send_packed_command(packed, check_health=False)
            except redis.TimeoutError:
                may_have_run = True  # if the last byte was sent just then
                raise
            may_have_run = True
            if also:
                return _both_replies(connection, command, handled_before)
            return connection.read_response(disable_decoding=True)
        except ResponseError as exc:
            if raised_by_handler(exc, handled_before) is not None:
                connection.disconnect()
                raise
            if _is_read_only(exc):
                connection.disconnect()  # the next connection asks Sentinel for the primary
                raise self._failed(exc, may_have_run=False) from exc
            raise
        except BaseException as exc:
            connection.disconnect()
            raise_interruption(exc, handled_before)
            if isinstance(exc, CONNECTION_ERRORS):
                # One of `ERROR_REPLIES` to the first of two commands says nothing about the second.
                unknown = may_have_run and (bool(also) or reply_lost(exc))
                raise self._failed(exc, may_have_run=unknown) from exc
            raise
        finally:
            self.pool.release(connection)

    def _connection(self, *, probing: bool) -> Any:
        handled_before = sys.exception()
        try:
            connection = self.pool.lend()
        except Exception as exc:
            raise_interruption(exc, handled_before)
            if isinstance(exc, MaxConnectionsError):
                raise StoreUnavailable(f"nothing was sent to {self._name}: {exc}") from exc
            if isinstance(exc, redis.RedisError | OSError):
                advice = connection_advice.on_connection(exc, self.pool)
                raise self._failed(exc, may_have_run=False, advice=advice) from exc
            raise
        if not self.breaker.closed and not probing:
            self.pool.release(connection)  # the breaker opened while this call waited
            self._probe_or_raise()
            return self._connection(probing=False)
        return connection

    def _failed(self, exc: BaseException, *, may_have_run: bool, advice: str = "") -> AttemptFailed:
        failure = AttemptFailed(exc, may_have_run=may_have_run, advice=advice)
        self.breaker.record_failure(str(failure))
        return failure

    # -- after a failure ---------------------------------------------------------------------

    def _retry(
        self,
        command: tuple[Any, ...],
        failure: AttemptFailed,
        kind: FailureKind,
        also: tuple[Any, ...],
    ) -> Any:
        """Repeat the command a few times if that is safe; else raise what is known about it.

        A script is repeated by its text: a server that was restarted may not know its digest.
        """
        command, also = with_text(command), with_text(also)
        may_have_run = failure.may_have_run  # any of the attempts
        for pause_s in _PAUSES_S:
            if may_have_run and kind is FailureKind.WRITE:
                break
            if not self.breaker.closed or isinstance(failure.cause, redis.TimeoutError):
                break  # one time-out is long enough for the caller
            # Jitter: the threads that a restart disconnected would otherwise all reconnect at once.
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
            try:
                return self._attempt(command, also)
            except AttemptFailed as exc:
                failure = exc
                may_have_run = may_have_run or exc.may_have_run
            except ResponseError as exc:
                if is_of_handler(exc):
                    raise
                found = _after(self._translated(exc), kind, may_have_run=may_have_run)
                raise found from (None if found is exc else exc)
            except StoreUnavailable as exc:  # this attempt was not made
                if is_of_handler(exc):
                    raise
                raise _after(exc, kind, may_have_run=may_have_run) from exc.__cause__
        if may_have_run and kind is not FailureKind.READ:
            raise OutcomeUnknown(
                f"{_described(command, also)} was sent to {self._name} and its reply was lost "
                f"({failure}): it may have been executed or may still be; "
                + ("it was not repeated" if kind is FailureKind.WRITE else "all retries failed too")
            ) from failure.cause
        raise StoreUnavailable(
            f"{_described(command, also)} was not executed: {self._name} failed ({failure})"
        ) from failure.cause

    def _probe_or_raise(self) -> None:
        """Return if commands may be sent; raise `StoreUnavailable` if Redis is known to be down."""
        if not self.breaker.admit():
            return
        try:
            self._attempt((b"PING",), probing=True)
        except AttemptFailed as failure:
            raise StoreUnavailable(
                f"nothing was sent to {self._name}: it failed a probe ({failure})"
            ) from failure.cause
        except ResponseError as exc:  # an error reply also shows that the server is up
            if is_of_handler(exc):
                self.breaker.record_failure(type(exc).__name__)
                raise
        except BaseException as exc:
            self.breaker.record_failure(type(exc).__name__)
            raise
        self.breaker.record_success()

    def _translated(self, exc: ResponseError) -> Exception:
        """Return the exception for an error reply: the command has not run."""
        text = str(exc)
        if isinstance(exc, redis.OutOfMemoryError) or "OOM command not allowed" in text:
            return StoreFull(f"{self._name} has no memory left for it; nothing was stored")
        if isinstance(exc, NoScriptError):
            return exc
        if isinstance(exc, AskError | ClusterCrossSlotError):
            text = (
                f"it is a node of a cluster, to be named by 'redis+cluster://' in LOCATION ({text})"
            )
        return StoreUnavailable(
            f"{self._name} refused the command: {text}; nothing was changed"
            f"{connection_advice.on_refusal(text)}"
        )


def _packed(connection: Any, command: tuple[Any, ...], also: tuple[Any, ...]) -> Any:
    packed = connection.pack_command(*command)
    return [b"".join([*packed, *connection.pack_command(*also)])] if also else packed


def _both_replies(
    connection: Any, command: tuple[Any, ...], handled_before: BaseException | None
) -> tuple[Any, Any]:
    """Return the replies to two commands, or raise the first error.

    If ASKING was refused, the command after it may have run nevertheless: its own reply is what counts.
    """
    first, second = (_reply_or_error(connection, handled_before) for _ in range(2))
    is_asking = command == (b"ASKING",) and not isinstance(second, ResponseError)
    for reply in (second,) if is_asking else (first, second):
        if isinstance(reply, ResponseError):
            raise reply
    return first, second


def _reply_or_error(connection: Any, handled_before: BaseException | None) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as exc:
        raise_interruption(exc, handled_before)
        return exc


def with_text(command: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a command with a script's text in place of its digest, which a server may not know."""
    if command[:1] != (b"EVALSHA",):
        return command
    return (b"EVAL", TEXTS[command[1]], *command[2:])


def _after(exc: Exception, kind: FailureKind, *, may_have_run: bool) -> Exception:
    """Return the error of a repetition, which must not say that an earlier attempt did nothing."""
    if may_have_run and kind is not FailureKind.READ:
        return OutcomeUnknown(f"it may have been executed, and its repetition was not: {exc}")
    return exc


def raise_interruption(exc: BaseException, handled_before: BaseException | None) -> None:
    """Raise the exception of a signal handler, if `exc` is one or redis-py replaced one by it."""
    interruption = raised_by_handler(exc, handled_before)
    if interruption is not None:
        raise interruption from interruption.__cause__


def is_of_handler(exc: BaseException) -> bool:
    """Return True if a signal handler raised it: it says nothing about the call that it interrupted."""
    return raised_by_handler(exc) is exc


def reply_lost(exc: BaseException) -> bool:
    """Return True if the reply was lost; some of redis-py's `ConnectionError`s are replies."""
    return not (
        isinstance(exc, ERROR_REPLIES)
        or isinstance(exc.__context__, ReadOnlyError)  # Sentinel's connections replace it
        or str(exc).startswith("max number of clients")
    )


def _is_read_only(exc: ResponseError) -> bool:
    return isinstance(exc, ReadOnlyError) or "READONLY You can't write" in str(exc)


def _described(command: tuple[Any, ...], also: tuple[Any, ...] = ()) -> str:
    """Return the command and its first key, for messages; never a value."""
    if command == (b"ASKING",):
        command = also
    if command[0] in {b"EVALSHA", b"EVAL"}:
        name, keys = SCRIPT_NAMES[command[1]], command[3:]
    else:
        name, keys = command[0].decode(), command[2 if command[0] == b"MSETEX" else 1 :]
    key = keys[0] if keys else None
    return f"{name} {key.decode(errors='replace')!r}" if isinstance(key, bytes) else name
