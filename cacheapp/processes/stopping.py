"""Stopping in order: the first signal unwinds the program, the others wait until that is done."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):  # like KeyboardInterrupt, no `except Exception` may swallow it
    """A signal asked us to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> None:
    # Once is enough: a second Ctrl-C must not interrupt the cleaning up.
    for again in _SIGNALS:
        signal.signal(again, signal.SIG_IGN)
    raise Stopped(number)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Raise `Stopped` at the first signal, in the main thread; put the handlers back at the end.

    What must be stopped is opened inside, so that its closing is not interrupted either.
    """
    before = {number: signal.signal(number, _stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
