"""What surrounds the function of a `get_or_set` for its subscribers, and is interrupted."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cacheapp.backends.core.operation import new_operation, set_current
from cacheapp.backends.core.operations import Timed, subscribe
from tests.integration.backends.interrupt_everywhere import interrupt_at


def _run(timed: Timed) -> None:
    timed()


def _await(timed: Timed) -> None:
    coroutine = timed()
    try:
        coroutine.send(None)
    except StopIteration:
        return


# The interruption may come before a coroutine begins.
@pytest.mark.filterwarnings("ignore:.*was never awaited:RuntimeWarning")
@pytest.mark.parametrize("run", [_run, _await], ids=["sync", "async"])
def test_an_interruption_leaves_nothing_entered(run: Callable[[Timed], None]) -> None:
    locks = [threading.Lock(), threading.Lock()]  # C code, within which nothing is interrupted
    seen = set()

    def look() -> None:
        seen.add(tuple(lock.locked() for lock in locks))

    async def alook() -> None:
        look()

    operation: Any = new_operation(None, "get_or_set")
    ends = [subscribe(lambda _: None, lambda _, lock=lock: lock) for lock in locks]  # type: ignore[misc]
    try:
        for number in itertools.count(1):
            set_current(operation)
            timed = Timed(operation, look if run is _run else alook)
            if not interrupt_at(number, lambda timed=timed: run(timed)):  # type: ignore[misc]
                break
            assert [lock.locked() for lock in locks] == [False, False], f"bytecode {number}"
    finally:
        for end in ends:
            end()
        set_current(None)
    assert seen == {(True, True)}
    assert number > 100
