from typing import Any

import pytest
import redis
from redis.exceptions import MaxConnectionsError

from cacheapp.backends.redis.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from cacheapp.backends.redis.executor import CommandExecutor, FailureKind
from cacheapp.errors import OutcomeUnknown, StoreFull, StoreUnavailable


class DownPool:
    """A pool whose server refuses connections; counts the attempts."""

    def __init__(self) -> None:
        self.asked = 0

    def get_connection(self) -> Any:
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
    """A connection that sends everything, and receives nothing, or an error."""

    health_check_interval = 0

    def __init__(self, failure: Exception) -> None:
        self._failure = failure

    def pack_command(self, *command: Any) -> list[Any]:
        return list(command)

    def send_packed_command(self, packed: Any, check_health: bool) -> None:  # noqa: FBT001
        pass

    def read_response(self, *, disable_decoding: bool) -> Any:
        assert disable_decoding
        raise self._failure

    def disconnect(self) -> None:
        pass


class LosingPool:
    """A pool whose connections fail in turn; the last failure is that there is none."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = [*failures]

    def get_connection(self) -> Any:
        failure = self._failures.pop(0)
        if isinstance(failure, MaxConnectionsError):
            raise failure
        return LosingConnection(failure)

    def release(self, connection: Any) -> None:
        pass


@pytest.mark.parametrize(
    "second",
    [MaxConnectionsError("all were busy"), redis.OutOfMemoryError("no memory")],
    ids=["not made", "refused"],
)
def test_a_repetition_that_did_nothing_does_not_deny_the_first_attempt(second: Exception) -> None:
    def execute(kind: FailureKind) -> None:
        pool = LosingPool(redis.ConnectionError("reset"), second)
        executor = CommandExecutor(pool, CircuitBreaker("Redis"), "Redis")
        executor.execute(b"GET", b"key", kind=kind)

    with pytest.raises(OutcomeUnknown, match="it may have been executed, and its repetition was"):
        execute(FailureKind.REPEATABLE)
    with pytest.raises((StoreUnavailable, StoreFull)):
        execute(FailureKind.READ)
