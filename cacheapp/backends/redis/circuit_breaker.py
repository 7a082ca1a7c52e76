"""A circuit breaker: while a server is down, calls fail at once instead of waiting for a time-out."""

import enum
import logging
import random
from collections.abc import Callable

from cacheapp import clock
from cacheapp.errors import StoreUnavailable
from cacheapp.thread_lock import reentrant_lock

logger = logging.getLogger(__name__)

FAILURES_TO_OPEN = 3
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5  # so that callers are served within a second of the server's return


class BreakerState(enum.Enum):
    """What a breaker does with the next call."""

    CLOSED = "closed"  # the call proceeds
    OPEN = "open"  # calls fail until the pause is over
    HALF_OPEN = "half-open"  # one caller probes; all other calls fail


_TRANSITIONS: dict[BreakerState, frozenset[BreakerState]] = {
    BreakerState.CLOSED: frozenset({BreakerState.CLOSED, BreakerState.OPEN}),
    BreakerState.OPEN: frozenset({BreakerState.HALF_OPEN, BreakerState.CLOSED}),
    BreakerState.HALF_OPEN: frozenset({BreakerState.OPEN, BreakerState.CLOSED}),
}


def _ignore_change(*, opened: bool) -> None:
    """Do nothing: the default for `on_change`."""


class CircuitBreaker:
    """The breaker of one server, shared by the threads of a process.

    `_lock` guards every field. It is reentrant: a signal handler may use the cache between any two
    calls made under it, and `_move` checks the state again afterwards. `closed` and `has_failures`
    are read without the lock: at the moment of a change one call more or less may proceed, and
    nothing depends on that.
    """

    def __init__(
        self,
        name: str,
        on_change: Callable[..., None] | None = None,
        now_s: Callable[[], float] = clock.monotonic_s,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._name = name
        # Called with `opened`, under the lock: the last call is about the current state.
        self._on_change = on_change or _ignore_change
        self._now_s = now_s
        self._jitter = jitter
        self._lock = reentrant_lock()
        self._state = BreakerState.CLOSED
        self._failures = 0  # in a row
        self._pause_s = _FIRST_PAUSE_S
        self._probe_at_s = 0.0
        self._reason = ""
        self._retired = False
        self.closed = True
        self.has_failures = False

    @property
    def state(self) -> BreakerState:
        """What happens to the next call."""
        return self._state

    def _move(self, state: BreakerState) -> None:
        """Change the state, unless a signal handler has just made the change illegal."""
        if state not in _TRANSITIONS[self._state]:
            return
        self._state = state
        self.closed = state is BreakerState.CLOSED

    def admit(self) -> bool:
        """Return True if the caller must probe first; raise `StoreUnavailable` if the call fails.

        After True the caller must call `record_success` or `record_failure`, whatever happens.
        """
        with self._lock:
            left_s = self._probe_at_s - self._now_s()
            if self._state is BreakerState.CLOSED:
                return False
            if self._state is BreakerState.OPEN and left_s <= 0:
                self._move(BreakerState.HALF_OPEN)
                return True
            raise StoreUnavailable(
                f"nothing was sent to {self._name}: the last {self._failures} attempts failed, the "
                f"latest with {self._reason}; the next probe is "
                + (
                    "in progress"
                    if self._state is BreakerState.HALF_OPEN
                    else f"in {max(left_s, 0):.2f} s"
                )
            )

    def record_success(self) -> None:
        """Close the breaker: the server has replied."""
        with self._lock:
            was_open = self._state is not BreakerState.CLOSED
            self._move(BreakerState.CLOSED)
            self._failures = 0
            self._pause_s = _FIRST_PAUSE_S
            self.has_failures = False
            if was_open:
                self._on_change(opened=False)
        if was_open:
            logger.warning("%s replies again", self._name, extra={"event": "cache_breaker_closed"})

    def retire(self) -> None:
        """Never open again: the server is not used now, and calls that still end say nothing."""
        with self._lock:
            self._retired = True
            if self._state is not BreakerState.CLOSED:
                self._move(BreakerState.CLOSED)
                self._on_change(opened=False)

    def record_failure(self, reason: str) -> None:
        """Count a failure; open the breaker after several in a row, or when a probe failed."""
        with self._lock:
            if self._retired or self._state is BreakerState.OPEN:
                return  # the failed call began before the breaker was retired or opened
            self._failures += 1
            self._reason = reason
            self.has_failures = True
            if self._state is BreakerState.CLOSED and self._failures < FAILURES_TO_OPEN:
                return
            opened = self._state is BreakerState.CLOSED
            self._move(BreakerState.OPEN)
            # Jitter: all workers of a machine see the server fail at the same time, and would
            # otherwise keep probing at the same time.
            self._probe_at_s = self._now_s() + self._pause_s * self._jitter(0.5, 1.0)
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
            if opened:
                self._on_change(opened=True)
        if opened:
            logger.warning(
                "%s is down (%s): calls fail at once until it replies to a probe",
                self._name,
                reason,
                extra={"event": "cache_breaker_opened"},
            )
