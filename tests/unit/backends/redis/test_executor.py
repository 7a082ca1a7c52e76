import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any, ClassVar

import pytest
import redis
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    ResponseError,
    TryAgainError,
)

from cacheapp.backends.redis import scripts
from cacheapp.backends.redis.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.connection_advice import is_refusal
from cacheapp.backends.redis.executor import CommandExecutor, FailureKind
from cacheapp.errors import OutcomeUnknown, StoreFull, StoreUnavailable


class DownPool:
    """A pool whose server refuses connections; counts the attempts."""

    connection_class = redis.Connection
    connection_kwargs: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.asked = 0

    def lend(self) -> Any:
        """Refuse."""
        self.asked += 1
        raise redis.ConnectionError("refused")


def test_while_the_server_is_down_only_probes_reach_for_it() -> None:
    now = [1000.0]
    pool = DownPool()
    breaker = CircuitBreaker("Redis at nowhere", now_s=lambda: now[0])
    executor = CommandExecutor(pool, breaker, "Redis at nowhere")
    with pytest.raises(StoreUnavailable, match=r"GET 'key' was not executed: .* refused"):
        executor.execute(b"GET", b"key", kind=FailureKind.READ)
    assert pool.asked == FAILURES_TO_OPEN
    for _ in range(100):
        with pytest.raises(StoreUnavailable, match="nothing was sent"):
            executor.execute(b"GET", b"key", kind=FailureKind.READ)
    assert pool.asked == FAILURES_TO_OPEN
    now[0] += 1
    with pytest.raises(StoreUnavailable, match="failed a probe"):
        executor.execute(b"SET", b"key", b"value")
    assert pool.asked == FAILURES_TO_OPEN + 1


class LosingConnection:
    """A connection that sends everything, and receives nothing, or an error, or these replies."""

    health_check_interval = 0

    def __init__(self, failure: Any, sent: list[Any]) -> None:
        self._replies = failure if isinstance(failure, list) else [failure]
        self._sent = sent

    def pack_command(self, *command: Any) -> list[bytes]:
        self._sent.append(command)
        return [b" ".join(command)]

    def send_packed_command(self, packed: Any, check_health: bool) -> None:  # noqa: FBT001
        pass

    def read_response(self, *, disable_decoding: bool) -> Any:
        assert disable_decoding
        reply = self._replies.pop(0)
        if callable(reply):
            reply = reply()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def disconnect(self) -> None:
        pass


class LosingPool:
    """A pool whose connections fail in turn; the last failure is that there is none."""

    def __init__(self, *failures: Any) -> None:
        self._failures = [*failures]
        self.sent: list[Any] = []

    def lend(self) -> Any:
        failure = self._failures.pop(0)
        if isinstance(failure, MaxConnectionsError):
            raise failure
        return LosingConnection(failure, self.sent)

    def release(self, connection: Any) -> None:
        pass


@pytest.mark.parametrize(
    "second",
    [
        MaxConnectionsError("all were busy"),
        redis.OutOfMemoryError("no memory"),
        MovedError("1 host:2"),
        AskError("1 host:2"),
        TryAgainError(),
        ClusterDownError("down"),
        NoScriptError("none"),
    ],
    ids=["not made", "refused", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "NOSCRIPT"],
)
def test_a_repetition_that_did_nothing_does_not_deny_the_first_attempt(second: Exception) -> None:
    def execute(kind: FailureKind) -> None:
        pool = LosingPool(redis.ConnectionError("reset"), second)
        executor = ClusterNode(pool, CircuitBreaker("Redis"), "host", 1)
        executor.execute(b"GET", b"key", kind=kind)

    with pytest.raises(OutcomeUnknown, match="it may have been executed, and its repetition was"):
        execute(FailureKind.REPEATABLE)
    with pytest.raises((StoreUnavailable, StoreFull, type(second))):
        execute(FailureKind.READ)


def test_a_script_is_repeated_by_its_text() -> None:
    """A server that was restarted knows no digests: NOSCRIPT would leave the first attempt open."""
    pool = LosingPool(redis.ConnectionError("reset"), [b"1"])
    executor = CommandExecutor(pool, CircuitBreaker("Redis"), "Redis")
    assert executor.run_script(scripts.LEASE, 1, b"key", kind=FailureKind.REPEATABLE) == b"1"
    assert pool.sent == [
        (b"EVALSHA", scripts.LEASE.sha, b"1", b"key"),
        (b"EVAL", scripts.LEASE.text, b"1", b"key"),
    ]


REFUSED = NoPermissionError("no permissions")


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        (
            [REFUSED, MovedError("1 host:2")],
            r"refused the command: no permissions.*nothing was changed",
        ),
        ([redis.BusyLoadingError("loading")], "may have been executed"),
    ],
    ids=["refused", "the other reply is not known"],
)
def test_what_becomes_of_asking_says_nothing_of_the_command_after_it(
    replies: list[Any], expected: str
) -> None:
    node = ClusterNode(LosingPool(replies), CircuitBreaker("Redis"), "host", 1)
    with pytest.raises((StoreUnavailable, OutcomeUnknown), match=expected):
        node.execute(b"ASKING", also=(b"INCR", b"key"))


def test_a_command_that_ran_without_asking_has_run() -> None:
    """The slot was handed over just then, at a user without the right to ASKING."""
    node = ClusterNode(LosingPool([REFUSED, 7]), CircuitBreaker("Redis"), "host", 1)
    assert node.execute(b"ASKING", also=(b"INCR", b"key"))[1] == 7


def test_an_error_in_place_of_one_of_two_replies_is_raised() -> None:
    executor = CommandExecutor(LosingPool([REFUSED, b"value"]), CircuitBreaker("Redis"), "Redis")
    with pytest.raises(StoreUnavailable, match="no permissions"):
        executor.execute(b"PTTL", b"key", kind=FailureKind.READ, also=(b"GET", b"key"))


@pytest.fixture
def interruption() -> Iterator[ResponseError]:
    """What the handler of SIGUSR1 raises: an error reply to a command of its own."""
    error = ResponseError("of another server")

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, handler)
    yield error
    signal.signal(signal.SIGUSR1, before)


def interrupt() -> None:
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize(
    ("replies", "also"),
    [
        ([[interrupt]], ()),
        ([redis.ConnectionError("reset"), [interrupt]], ()),
        ([[b"0", interrupt]], (b"GET", b"key")),
    ],
    ids=["the first attempt", "a repetition", "the second of two replies"],
)
def test_an_error_reply_to_a_signal_handler_is_not_one_to_the_command(
    replies: list[Any], also: tuple[Any, ...], interruption: ResponseError
) -> None:
    executor = CommandExecutor(LosingPool(*replies), CircuitBreaker("Redis"), "Redis")
    with pytest.raises(ResponseError) as caught:
        executor.execute(b"PTTL", b"key", kind=FailureKind.REPEATABLE, also=also)
    assert caught.value is interruption


def test_an_error_reply_to_a_signal_handler_is_none_to_a_probe(interruption: ResponseError) -> None:
    now = [1000.0]
    breaker = CircuitBreaker("Redis", now_s=lambda: now[0])
    for _ in range(FAILURES_TO_OPEN):
        breaker.record_failure("it is down")
    now[0] += 10
    with pytest.raises(ResponseError) as caught:
        CommandExecutor(LosingPool([interrupt]), breaker, "Redis").execute(b"GET", b"key")
    assert caught.value is interruption
    assert not breaker.closed


@pytest.mark.parametrize(
    "first", [[], [redis.ConnectionError("reset")]], ids=["at once", "repeated"]
)
def test_a_redirection_is_not_its_own_cause(first: list[Any]) -> None:
    """Else what follows the causes of a later failure never ends."""
    moved = MovedError("1 host:2")
    node = ClusterNode(LosingPool(*first, moved), CircuitBreaker("Redis"), "host", 1)
    with pytest.raises(MovedError) as caught:
        node.execute(b"GET", b"key", kind=FailureKind.READ)
    assert caught.value is moved
    assert caught.value.__cause__ is None


@pytest.mark.timeout(60)
def test_the_reason_of_a_failure_is_found_though_its_causes_go_round() -> None:
    error = redis.ConnectionError("refused")
    error.__cause__ = error
    assert not is_refusal(error)
