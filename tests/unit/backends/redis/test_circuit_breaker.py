import logging
import threading

import pytest

from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.redis.circuit_breaker import FAILURES_TO_OPEN, BreakerState, CircuitBreaker
from cacheapp.errors import StoreUnavailable


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("Redis at nowhere", now_s=clock, jitter=lambda _low, high: high)


def open_it(breaker: CircuitBreaker) -> None:
    for _ in range(FAILURES_TO_OPEN):
        breaker.record_failure("refused")


def state(breaker: CircuitBreaker) -> BreakerState:
    """Read the state; without a function the type checker would assume that it never changes."""
    return breaker.state


def test_a_few_failures_in_a_row_open_it(breaker: CircuitBreaker) -> None:
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.record_failure("refused")
    assert state(breaker) is BreakerState.CLOSED
    breaker.record_success()
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.record_failure("refused")
    assert state(breaker) is BreakerState.CLOSED
    breaker.record_failure("refused")
    assert state(breaker) is BreakerState.OPEN
    assert not breaker.closed


def test_while_open_callers_are_refused_with_the_reason(breaker: CircuitBreaker) -> None:
    open_it(breaker)
    with pytest.raises(
        StoreUnavailable, match=r"sent to Redis at nowhere: .* 3 .* refused; .* 0\.05 s"
    ):
        breaker.admit()


def test_after_the_pause_exactly_one_caller_probes(breaker: CircuitBreaker, clock: Clock) -> None:
    open_it(breaker)
    clock.now += 0.06
    probes = []
    barrier = threading.Barrier(8)

    def call() -> None:
        barrier.wait(60)
        try:
            probes.append(breaker.admit())
        except StoreUnavailable:
            probes.append(False)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(probes) == [False] * 7 + [True]
    assert state(breaker) is BreakerState.HALF_OPEN


def test_a_successful_probe_closes_it(breaker: CircuitBreaker, clock: Clock) -> None:
    open_it(breaker)
    clock.now += 0.06
    assert breaker.admit() is True
    breaker.record_success()
    assert state(breaker) is BreakerState.CLOSED
    assert breaker.admit() is False


def test_failed_probes_come_at_growing_intervals_of_at_most_half_a_second(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    open_it(breaker)
    pauses = []
    for _ in range(8):
        began = clock.now
        while True:
            try:
                breaker.admit()
            except StoreUnavailable:
                clock.now += 0.01
            else:
                break
        pauses.append(clock.now - began)
        breaker.record_failure("refused")
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5], abs=0.011)


def test_a_late_failure_from_before_does_not_delay_the_next_probe(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    open_it(breaker)
    clock.now += 0.04
    breaker.record_failure("timed out")
    clock.now += 0.02
    assert breaker.admit() is True


def test_opening_and_closing_are_logged_and_reported_once_each(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    reported: list[bool] = []
    breaker = CircuitBreaker(
        "Redis at nowhere", lambda *, opened: reported.append(opened), now_s=clock
    )
    with caplog.at_level(logging.WARNING):
        open_it(breaker)
        for _ in range(3):
            clock.now += 1
            breaker.admit()
            breaker.record_failure("refused")
        clock.now += 1
        breaker.admit()
        breaker.record_success()
        breaker.record_success()
    # Those of this thread: threads that other tests have left may log too.
    own = [vars(it) for it in caplog.records if it.thread == threading.get_ident()]
    assert [it["event"] for it in own] == ["cache_breaker_opened", "cache_breaker_closed"]
    assert reported == [True, False]


def test_a_message_is_due_once_a_minute_and_counts_those_withheld(clock: Clock) -> None:
    quiet = LogThrottle(now_s=clock)
    assert [quiet.due() for _ in range(4)] == [0, None, None, None]
    clock.now += 59.9
    assert quiet.due() is None
    clock.now += 0.2
    assert quiet.due() == 4
    assert quiet.due() is None


def test_a_call_from_a_signal_handler_inside_a_change_does_not_wait_for_itself(
    clock: Clock,
) -> None:
    handlers: list[str] = []

    def now_s() -> float:  # called under the lock, where a signal may arrive
        if handlers:
            handlers.pop()
            probed.record_success()
        return clock()

    probed = CircuitBreaker("Redis", now_s=now_s, jitter=lambda _low, high: high)
    open_it(probed)
    clock.now += 10
    handlers.append("closes it")
    assert probed.admit() is False
    assert state(probed) is BreakerState.CLOSED


def test_a_retired_breaker_never_opens_again() -> None:
    changes: list[bool] = []
    breaker = CircuitBreaker("Redis", lambda *, opened: changes.append(opened))
    open_it(breaker)
    breaker.retire()
    open_it(breaker)  # calls of other threads that end later
    assert state(breaker) is BreakerState.CLOSED
    assert breaker.admit() is False
    assert changes == [True, False]


def test_a_probe_that_fails_after_the_retirement_opens_nothing(clock: Clock) -> None:
    changes: list[bool] = []
    breaker = CircuitBreaker("Redis", lambda *, opened: changes.append(opened), now_s=clock)
    open_it(breaker)
    clock.now += 1
    assert breaker.admit() is True
    breaker.retire()
    breaker.record_failure("the probe failed")
    assert state(breaker) is BreakerState.CLOSED
    assert changes == [True, False]
