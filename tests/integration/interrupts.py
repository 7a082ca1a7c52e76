"""Interrupts the main thread where it waits, and nowhere else."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from cacheapp.processes.waiting import until


def _place(thread: int, inside: str) -> tuple[int, int] | None:
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
        seen.append(_place(main, inside))
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
