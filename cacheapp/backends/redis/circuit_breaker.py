"""A circuit breaker: while a server is down, callers learn it at once instead of waiting."""

import enum
import logging
import random
import threading
from collections.abc import Callable

from cacheapp import clock
from cacheapp.errors import StoreUnavailable

logger = logging.getLogger(__name__)

FAILURES_TO_OPEN = 3
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5  # survivors are to be back within a second of the server


class BreakerState(enum.Enum):
    """What a breaker does with the next call."""

    CLOSED = "closed"  # lets it through
    OPEN = "open"  # refuses it until the pause is over
    HALF_OPEN = "half-open"  # one caller probes; refuses all others meanwhile


_TRANSITIONS: dict[BreakerState, frozenset[BreakerState]] = {
    BreakerState.CLOSED: frozenset({BreakerState.CLOSED, BreakerState.OPEN}),
    BreakerState.OPEN: frozenset({BreakerState.HALF_OPEN, BreakerState.CLOSED}),
    BreakerState.HALF_OPEN: frozenset({BreakerState.OPEN, BreakerState.CLOSED}),
}


def _nothing(*, opened: bool) -> None:
    """Tell nobody."""


class CircuitBreaker:
    """The state of one way to a server, shared by the threads of a process.

    `_lock` guards every field. It is reentrant: a signal handler may use the cache between any two
    calls made under it, and what that changed is then looked at again (`_move`). `closed` and `has_failures` are read without it: a call more or less
    goes through in the moment of a change, and nothing depends on that.
    """

    def __init__(
        self,
        name: str,
        changed: Callable[..., None] | None = None,
        now_s: Callable[[], float] = clock.monotonic_s,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._name = name
        self._changed = changed or _nothing  # called with `opened`, outside of the lock
        self._now_s = now_s
        self._jitter = jitter
        self._lock = threading.RLock()
        self._state = BreakerState.CLOSED
        self._failures = 0  # in a row
        self._pause_s = _FIRST_PAUSE_S
        self._probe_at_s = 0.0
        self._reason = ""
        self.closed = True
        self.has_failures = False

    @property
    def state(self) -> BreakerState:
        """What happens to the next call."""
        return self._state

    def _move(self, state: BreakerState) -> None:
        """Move, unless a signal handler has just moved to where no move leads there."""
        if state not in _TRANSITIONS[self._state]:
            return
        self._state = state
        self.closed = state is BreakerState.CLOSED

    def admit(self) -> bool:
        """Return whether the caller has to probe first; raise `StoreUnavailable` if refused.

        Who is told to probe must report by `record_success` or `failed`, whatever happens.
        """
        with self._lock:
            left_s = self._probe_at_s - self._now_s()
            if self._state is BreakerState.CLOSED:
                return False
            if self._state is BreakerState.OPEN and left_s <= 0:
                self._move(BreakerState.HALF_OPEN)
                return True
            raise StoreUnavailable(
                f"{self._name} was not asked: {self._failures} attempts in a row failed, the last "
                f"with {self._reason}; it is probed "
                + ("now" if self._state is BreakerState.HALF_OPEN else f"in {max(left_s, 0):.2f} s")
            )

    def record_success(self) -> None:
        """Take an answer as the proof that the server serves."""
        with self._lock:
            was_open = self._state is not BreakerState.CLOSED
            self._move(BreakerState.CLOSED)
            self._failures = 0
            self._pause_s = _FIRST_PAUSE_S
            self.has_failures = False
        if was_open:
            self._changed(opened=False)
            logger.warning("%s answers again", self._name, extra={"event": "cache_breaker_closed"})

    def record_failure(self, reason: str) -> None:
        """Count a failure; open after a few in a row, or when a probe failed."""
        with self._lock:
            if self._state is BreakerState.OPEN:
                return  # a call from before: its failure is no news
            self._failures += 1
            self._reason = reason
            self.has_failures = True
            if self._state is BreakerState.CLOSED and self._failures < FAILURES_TO_OPEN:
                return
            opened = self._state is BreakerState.CLOSED
            self._move(BreakerState.OPEN)
            # Jitter: the workers of a host found the server down together, and would go on
            # probing together.
            self._probe_at_s = self._now_s() + self._pause_s * self._jitter(0.5, 1.0)
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        if opened:
            self._changed(opened=True)
            logger.warning(
                "%s fails (%s): calls fail at once until it answers a probe",
                self._name,
                reason,
                extra={"event": "cache_breaker_opened"},
            )
