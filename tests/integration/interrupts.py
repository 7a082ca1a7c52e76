"""Interrupt the main thread: where it waits, or at any bytecode, again and again."""

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from cacheapp.processes.waiting import until


def place_in(thread: int, inside: str) -> tuple[int, int] | None:
    """Return where a thread is, if that is within a call of this function."""
    frame = innermost = sys._current_frames().get(thread)  # noqa: SLF001 (documented)
    while frame is not None:
        if frame.f_code.co_name == inside:
            assert innermost is not None
            return id(innermost), innermost.f_lasti
        frame = frame.f_back
    return None


@contextlib.contextmanager
def interrupted_in(inside: str) -> Iterator[None]:
    """Send SIGUSR1 to this process once its main thread stands still inside a function so called."""
    main = threading.main_thread().ident
    assert main is not None
    seen: list[tuple[int, int] | None] = [None]

    def stands() -> bool:
        seen.append(place_in(main, inside))
        return seen[-1] is not None and seen[-5:] == [seen[-1]] * 5

    def interrupt() -> None:
        until(stands, f"the main thread to wait in {inside}", 60)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextlib.contextmanager
def handled_again_and_again(
    handler: Callable[[], object], pauses_s: Sequence[float] = (0.0011, 0.0017, 0.0023)
) -> Iterator[None]:
    """Call `handler` in the main thread between two bytecodes, and again after each pause in turn.

    It never runs inside itself: the timer starts anew at its end. After the block, the timer is that
    of the test's timeout again.
    """
    after_s = itertools.cycle(pauses_s)
    ended = False

    def handle(_number: int, _frame: object) -> None:
        handler()
        if not ended:  # a signal may come before the timer is stopped, and be handled after that
            signal.setitimer(signal.ITIMER_REAL, next(after_s))

    handler_before = signal.signal(signal.SIGALRM, handle)
    timer_before = signal.setitimer(signal.ITIMER_REAL, next(after_s))
    try:
        yield
    finally:
        ended = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler_before)
        signal.setitimer(signal.ITIMER_REAL, *timer_before)
