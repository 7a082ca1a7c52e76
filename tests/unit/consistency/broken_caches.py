"""Caches that break a promise, run by clients in simulated time: a history in milliseconds.

A method is a generator: between two steps other clients may act. Now and then a call lasts as long as
forty others, as one does whose process was not scheduled.
"""

import heapq
import random
from collections.abc import Callable, Generator
from typing import Any

from cacheapp.consistency.history import ABSENT, Operation, OperationKind

Steps = Generator[None, None, Any]
_KINDS = ["get"] * 45 + ["set"] * 20 + ["add"] * 10 + ["delete"] * 8 + ["touch"] * 5 + ["incr"] * 12


class Right:
    """Each method is one step."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.value: Any = ABSENT
        self.old: Any = ABSENT

    def get(self, _client: int, _argument: Any) -> Steps:
        yield
        return self.value

    def set(self, _client: int, argument: Any) -> Steps:
        yield
        self.old, self.value = self.value, argument

    def add(self, _client: int, argument: Any) -> Steps:
        yield
        if self.value is not ABSENT:
            return False
        self.value = argument
        return True

    def delete(self, _client: int, _argument: Any) -> Steps:
        yield
        there = self.value is not ABSENT
        self.value = ABSENT
        return there

    def touch(self, _client: int, _argument: Any) -> Steps:
        yield
        return self.value is not ABSENT

    def incr(self, _client: int, argument: Any) -> Steps:
        yield
        if self.value is ABSENT:
            return ABSENT
        self.value += argument
        return self.value


class LosesUpdates(Right):
    """Reads, and writes later."""

    def incr(self, _client: int, argument: Any) -> Steps:
        yield
        read = self.value
        if read is ABSENT:
            return ABSENT
        yield
        self.value = read + argument
        return self.value


class HasTwoWinners(Right):
    """Looks first, and writes later."""

    def add(self, _client: int, argument: Any) -> Steps:
        yield
        if self.value is not ABSENT:
            return False
        yield
        self.value = argument
        return True


class Resurrects(Right):
    """Touches by reading and writing."""

    def touch(self, _client: int, _argument: Any) -> Steps:
        yield
        read = self.value
        yield
        if read is not ABSENT:
            self.value = read
        return read is not ABSENT


class GapsWhileWriting(Right):
    """Removes the old value before it writes the new one."""

    def set(self, _client: int, argument: Any) -> Steps:
        yield
        self.value = ABSENT
        yield
        self.value = argument


class ReadsBack(Right):
    """Returns the value before now and then."""

    def get(self, _client: int, _argument: Any) -> Steps:
        yield
        return self.old if self.rng.random() < 0.05 else self.value


class CopiesPerClient(Right):
    """Keeps a copy for each client for some reads."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.copies: dict[int, Any] = {}

    def get(self, client: int, _argument: Any) -> Steps:
        yield
        if client not in self.copies or self.rng.random() < 0.3:
            self.copies[client] = self.value
        return self.copies[client]


class ForgetsDeletes(Right):
    """Acknowledges some deletes without effect."""

    def delete(self, _client: int, _argument: Any) -> Steps:
        yield
        there = self.value is not ABSENT
        if self.rng.random() < 0.7:
            self.value = ABSENT
        return there


class LosesWrites(Right):
    """Acknowledges some writes without effect."""

    def set(self, _client: int, argument: Any) -> Steps:
        yield
        if self.rng.random() < 0.9:
            self.value = argument


class AcknowledgesEarly(Right):
    """A write takes effect only after another call."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.late: list[Any] = []

    def get(self, _client: int, _argument: Any) -> Steps:
        yield
        found = self.value
        if self.late:
            self.value = self.late.pop()
        return found

    def set(self, _client: int, argument: Any) -> Steps:
        yield
        self.late.append(argument)


class DropsKeys(Right):
    """Loses the entry now and then."""

    def get(self, _client: int, _argument: Any) -> Steps:
        yield
        if self.rng.random() < 0.02:
            self.value = ABSENT
        return self.value


BROKEN: list[type[Right]] = [
    LosesUpdates,
    HasTwoWinners,
    Resurrects,
    GapsWhileWriting,
    ReadsBack,
    CopiesPerClient,
    ForgetsDeletes,
    LosesWrites,
    AcknowledgesEarly,
    DropsKeys,
]


def played(
    make: Callable[[random.Random], Right], seed: int, calls: int = 400, clients: int = 8
) -> list[Operation]:
    """Return the history of clients that call one key of a cache."""
    rng = random.Random(seed)
    cache = make(rng)
    found: list[Operation] = []
    # (moment, client, steps under way, what was called)
    turns: list[tuple[int, int, Steps | None, tuple[Any, ...]]] = []
    for client in range(clients):
        heapq.heappush(turns, (rng.randint(0, 100), client, None, ()))
    written = 0
    while turns:
        now, client, steps, called = heapq.heappop(turns)
        if steps is None:
            written += 1
            if written > calls:
                continue
            kind = rng.choice(_KINDS)
            argument = 1 if kind == "incr" else written * 1_000 if kind in {"set", "add"} else None
            steps = getattr(cache, kind)(client, argument)
            next(steps)
            called = (kind, now, argument)
            heapq.heappush(turns, (now + _lasts(rng), client, steps, called))
            continue
        try:
            next(steps)
        except StopIteration as done:
            kind, began, argument = called
            end = now + _lasts(rng)
            found.append(
                Operation(f"p{client}", OperationKind(kind), "k", began, end, argument, done.value)
            )
            heapq.heappush(turns, (end + rng.randint(1, 40), client, None, ()))
        else:
            heapq.heappush(turns, (now + _lasts(rng), client, steps, called))
    return found


def _lasts(rng: random.Random) -> int:
    return rng.randint(1, 40) if rng.random() < 0.99 else 40 * 60
