"""Find the calls of some functions on the stacks of threads: no exception can leave that wrong.

A mark that a function removes at its end stays if an exception of a signal handler comes at the wrong
moment. The stack knows whether the function still runs.
"""

import sys
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class RunningCalls:
    """The running calls of the functions that are registered."""

    def __init__(self) -> None:
        self._codes: set[CodeType] = set()

    def register(self, function: FunctionT) -> FunctionT:
        """Register a function; return it."""
        self._codes.add(function.__code__)
        return function

    def count(self, ident: int) -> int:
        """Return how many of them are on the stack of a thread; 0 if it has ended."""
        if ident == threading.get_ident():
            frame = sys._getframe()  # noqa: SLF001 (documented, for a look at the own stack)
        else:
            frame = sys._current_frames().get(ident)  # type: ignore[assignment]  # noqa: SLF001 (documented)
        found = 0
        while frame is not None:
            found += frame.f_code in self._codes
            frame = frame.f_back  # type: ignore[assignment]
        return found


def has_stacks() -> bool:
    """Return False where a library such as gevent runs many threads of its own on one stack each in turn."""
    return threading.get_ident() in sys._current_frames()  # noqa: SLF001 (documented)
