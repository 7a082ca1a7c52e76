"""Recognise an exception that a signal handler raised inside a call: it is no failure of that call.

A handler may raise anything between any two bytecodes, for example Celery's soft time limit. Such an
exception belongs to the caller. Code that catches the errors of a call must not retry, translate or
ignore it.

From Python 3.13 on, the end of a pass of some loops is outside of the `with` and `try` around them. Invariant: a
loop whose last jump is conditional is in a function of its own, and the block is in its caller
(`tests/unit/backends/test_uncovered_jumps.py` names these loops).
"""

import contextlib
import functools
import importlib
import signal
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any


def is_interruption(error: BaseException) -> bool:
    """Return True if the error did not come from the call that seems to have raised it.

    That is an exception raised in a signal handler, or an `OSError` without an `errno`: no system
    call raised that. Time-outs of sockets have none either; use `raised_by_handler` for those.
    """
    return (isinstance(error, OSError) and error.errno is None) or _passed_a_handler(
        error, _handler_codes()
    )


def raised_by_handler(
    error: BaseException, handled_before: BaseException | None = None
) -> BaseException | None:
    """Return the exception of a signal handler that is `error`, or that `error` replaced.

    `handled_before`: what `sys.exception()` was when the call began; its history does not count.
    """
    codes = _handler_codes()
    found: BaseException | None = error
    seen: set[int] = set()  # a cause may have its effect as its context
    while found is not None and found is not handled_before and id(found) not in seen:
        if _passed_a_handler(found, codes):
            return found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return None


@contextlib.contextmanager
def suppress_failure(*kinds: type[Exception]) -> Iterator[None]:
    """Suppress these exceptions, unless they are interruptions: a safe `contextlib.suppress`."""
    try:
        yield
    except kinds as exc:
        if is_interruption(exc):
            raise


def _passed_a_handler(error: BaseException, codes: frozenset[CodeType]) -> bool:
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    return False


# `signal.getsignal` converts what this returns to an enum, and loses a `ValueError` that a handler
# raises just then.
_handler_of: Callable[[int], Any] = importlib.import_module("_signal").getsignal
_SIGNALS = sorted(signal.valid_signals())


def _handler_codes() -> frozenset[CodeType]:
    """Return the code objects of this process's signal handlers."""
    found = set()
    for number in _SIGNALS:
        handler = _handler_of(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        for candidate in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004 (its code)
            code = getattr(candidate, "__code__", None)  # a method has its function's
            if isinstance(code, CodeType):
                found.add(code)
    return frozenset(found)
