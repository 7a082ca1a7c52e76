"""Recognise exceptions that came from a signal handler."""

import errno
import functools
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cacheapp.backends.local.interruptions import (
    is_interruption,
    raised_by_handler,
    suppress_failure,
)


class Handlers:
    """Signal handlers of several kinds."""

    def method(self, _number: int, _frame: object) -> None:
        _raise()

    def __call__(self, _number: int, _frame: object) -> None:
        _raise()


def _function(_number: int, _frame: object) -> None:
    _raise()


def _partial(_first: str, _number: int, _frame: object) -> None:
    _raise()


def _raise() -> None:
    raise KeyError("from a handler")


HANDLERS: dict[str, Any] = {
    "function": _function,
    "method": Handlers().method,
    "object": Handlers(),
    "partial": functools.partial(_partial, "x"),
}


@pytest.fixture(params=list(HANDLERS))
def interrupt(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Run a handler that raises."""
    before = signal.signal(signal.SIGUSR1, HANDLERS[request.param])
    yield lambda: signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_an_exception_of_a_handler_is_recognised(interrupt: Callable[[], None]) -> None:
    with pytest.raises(KeyError) as raised:
        interrupt()
    assert is_interruption(raised.value)
    assert raised_by_handler(raised.value) is raised.value


def test_an_exception_that_a_library_replaced_is_found(interrupt: Callable[[], None]) -> None:
    def replace() -> None:
        try:
            interrupt()
        except KeyError:
            raise RuntimeError("of the library")  # noqa: B904 (as libraries do)

    with pytest.raises(RuntimeError) as raised:
        replace()
    assert not is_interruption(raised.value)
    assert isinstance(raised_by_handler(raised.value), KeyError)


def test_what_the_caller_was_handling_before_does_not_count(
    interrupt: Callable[[], None],
) -> None:
    try:
        interrupt()
    except KeyError:
        handled_before = sys.exception()
        with pytest.raises(RuntimeError) as raised:
            raise RuntimeError("a failure") from None
    assert raised_by_handler(raised.value, handled_before) is None


def test_exceptions_that_name_each_other_are_followed_once() -> None:
    cause, effect = StopIteration(), RuntimeError()
    effect.__cause__, cause.__context__ = cause, effect
    assert raised_by_handler(effect) is None


@pytest.mark.parametrize(
    ("error", "interruption"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), False),
        (TimeoutError(), True),
        (OSError("of a handler"), True),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_no_system_call_raises_an_error_without_a_number(
    *, error: Exception, interruption: bool
) -> None:
    assert is_interruption(error) is interruption


def test_only_failures_are_suppressed() -> None:
    with suppress_failure(OSError):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")
    with pytest.raises(TimeoutError), suppress_failure(OSError):
        raise TimeoutError
    with pytest.raises(ValueError, match="other"), suppress_failure(OSError):
        raise ValueError("other")
