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


class State(enum.Enum):
    """What a breaker does with the next call."""

    CLOSED = "closed"  # lets it through
    OPEN = "open"  # refuses it until the pause is over
    HALF_OPEN = "half-open"  # one caller probes; refuses all others meanwhile


_MOVES: dict[State, frozenset[State]] = {
    State.CLOSED: frozenset({State.CLOSED, State.OPEN}),
    State.OPEN: frozenset({State.HALF_OPEN, State.CLOSED}),
    State.HALF_OPEN: frozenset({State.OPEN, State.CLOSED}),
}


def _nothing(*, opened: bool) -> None:
    """Tell nobody."""


class Breaker:
    """The state of one way to a server, shared by the threads of a process.

    `_lock` guards every field. It is reentrant: a signal handler may use the cache between any two
    calls made under it, and what that changed is then looked at again (`_move`). `closed` and `troubled` are read without it: a call more or less
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
        self._state = State.CLOSED
        self._failures = 0  # in a row
        self._pause_s = _FIRST_PAUSE_S
        self._probe_at_s = 0.0
        self._reason = ""
        self.closed = True
        self.troubled = False

    @property
    def state(self) -> State:
        """What happens to the next call."""
        return self._state

    def _move(self, state: State) -> None:
        """Move, unless a signal handler has just moved to where no move leads there."""
        if state not in _MOVES[self._state]:
            return
        self._state = state
        self.closed = state is State.CLOSED

    def admit(self) -> bool:
        """Return whether the caller has to probe first; raise `StoreUnavailable` if refused.

        Who is told to probe must report by `succeeded` or `failed`, whatever happens.
        """
        with self._lock:
            left_s = self._probe_at_s - self._now_s()
            if self._state is State.CLOSED:
                return False
            if self._state is State.OPEN and left_s <= 0:
                self._move(State.HALF_OPEN)
                return True
            raise StoreUnavailable(
                f"{self._name} was not asked: {self._failures} attempts in a row failed, the last "
                f"with {self._reason}; it is probed "
                + ("now" if self._state is State.HALF_OPEN else f"in {max(left_s, 0):.2f} s")
            )

    def succeeded(self) -> None:
        """Take an answer as the proof that the server serves."""
        with self._lock:
            was_open = self._state is not State.CLOSED
            self._move(State.CLOSED)
            self._failures = 0
            self._pause_s = _FIRST_PAUSE_S
            self.troubled = False
        if was_open:
            self._changed(opened=False)
            logger.warning("%s answers again", self._name, extra={"event": "cache_breaker_closed"})

    def failed(self, reason: str) -> None:
        """Count a failure; open after a few in a row, or when a probe failed."""
        with self._lock:
            if self._state is State.OPEN:
                return  # a call from before: its failure is no news
            self._failures += 1
            self._reason = reason
            self.troubled = True
            if self._state is State.CLOSED and self._failures < FAILURES_TO_OPEN:
                return
            opened = self._state is State.CLOSED
            self._move(State.OPEN)
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
