"""Recognise exceptions that came from a signal handler."""

import errno
import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheapp.backends.disk.value_files import ValueFiles
from cacheapp.backends.local import pid_namespace, slot_file
from cacheapp.backends.local.interruptions import (
    is_interruption,
    raised_by_handler,
    suppress_failure,
)
from tests.integration.backends.interrupt_everywhere import interrupt_at


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


def _missing(_number: int, _frame: object) -> None:
    os.stat("/a file of the handler")  # noqa: PTH116


@pytest.fixture
def _misses_a_file() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, _missing)
    yield
    signal.signal(signal.SIGUSR1, before)


def _read_value(path: Path) -> object:
    return ValueFiles(str(path.parent)).read(path.name, 5, None)


@pytest.mark.usefixtures("_misses_a_file")
# A file that it left open is closed by its finaliser, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("read", [slot_file.identity_of, _read_value, pid_namespace._is_held])  # noqa: SLF001
def test_a_file_that_a_handler_misses_is_not_the_one_that_is_read(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "value"
    path.write_bytes(b"value")
    expected = read(path)
    raises = functools.partial(signal.raise_signal, signal.SIGUSR1)
    lost: list[int] = []
    for number in itertools.count(1):
        try:
            if not interrupt_at(number, functools.partial(read, path), raises):
                break
            lost.append(number)
        except FileNotFoundError:
            pass
    assert number > 3
    assert not lost
    assert read(path) == expected
