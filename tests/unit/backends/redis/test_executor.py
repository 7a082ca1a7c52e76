from typing import Any

import pytest
import redis

from cacheapp.backends.redis.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from cacheapp.backends.redis.executor import CommandExecutor, FailureKind
from cacheapp.errors import StoreUnavailable


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
