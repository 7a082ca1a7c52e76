import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cacheapp.processes.waiting import until
from cacheapp.thread_lock import reentrant_lock

pytestmark = pytest.mark.timeout(
    300, method="thread"
)  # the other method uses the timer of these tests


class Interrupted(Exception):
    """What the handler raises."""


@pytest.fixture
def _interrupting() -> Iterator[None]:
    def interrupt(*_signal: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _is_free(lock: Any) -> bool:
    """Return True if another thread can acquire it."""
    acquired: list[bool] = []

    def acquire() -> None:
        acquired.append(lock.acquire(blocking=False))
        if acquired[0]:
            lock.release()

    thread = threading.Thread(target=acquire)
    thread.start()
    thread.join()
    return acquired[0]


def _enter_until_interrupted(lock: Any, after_s: float) -> None:
    try:
        signal.setitimer(signal.ITIMER_REAL, after_s)
        while True:
            with lock:
                pass
    except Interrupted:
        pass


@pytest.mark.usefixtures("_interrupting")
def test_an_exception_of_a_handler_leaves_it_free_wherever_it_arrives() -> None:
    lock = reentrant_lock()
    for number in range(300):  # on Python 3.14, half of these leave a lock of `threading` held
        _enter_until_interrupted(lock, 0.00005 + number * 1e-6)
        assert _is_free(lock), f"held after {number} interruptions"


@pytest.mark.usefixtures("_interrupting")
def test_an_exception_of_a_handler_while_another_thread_holds_it_takes_nothing() -> None:
    lock = reentrant_lock()
    held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    _enter_until_interrupted(lock, 0.01)
    assert not _is_free(lock)
    end.set()
    thread.join()
    assert _is_free(lock)


def test_its_thread_may_enter_again_and_others_wait_until_it_has_left_as_often() -> None:
    lock = reentrant_lock()
    with lock:
        with lock:
            assert not _is_free(lock)
        assert not _is_free(lock)
    assert _is_free(lock)


def test_it_is_what_a_condition_needs() -> None:
    lock = reentrant_lock()
    changed = threading.Condition(lock)
    waits, woken = threading.Event(), threading.Event()

    def wait() -> None:
        with lock, lock:  # `wait` releases both, and acquires both again
            waits.set()
            changed.wait()
            woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    waits.wait()

    def is_woken() -> bool:
        with lock:
            changed.notify()
        return woken.is_set()

    until(is_woken, "the thread that waits")
    thread.join()
    assert _is_free(lock)
