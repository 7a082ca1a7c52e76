"""Stop a program in order: the first signal unwinds it, later signals are ignored."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):  # like KeyboardInterrupt, no `except Exception` may swallow it
    """A signal stopped the program; the message is its name."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C must not interrupt the cleanup.
    for again in _SIGNALS:
        signal.signal(again, signal.SIG_IGN)
    raise Stopped(number)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Raise `Stopped` at the first signal, in the main thread; restore the handlers at the end.

    Open inside the block what must be stopped, so that its closing is not interrupted either.
    """
    before = {number: signal.signal(number, _stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
