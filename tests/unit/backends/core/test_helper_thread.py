import signal
import threading
from collections.abc import Iterator

import pytest

from cacheapp.backends.core import helper_thread
from cacheapp.backends.core.log_throttle import LogThrottle


@pytest.fixture
def _handler() -> Iterator[None]:
    def handler(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("_handler")
def test_an_exception_of_a_handler_is_not_taken_for_a_refusal_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = threading.Event.wait

    def wait(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is not threading.main_thread():  # one of another test
            return original(event, timeout)
        with event._cond:  # type: ignore[attr-defined]  # noqa: SLF001
            # As in `Condition.wait`, after the wait and before it takes the lock again. `with` then
            # releases a lock that is not held, and Python raises its RuntimeError instead.
            event._cond.release()  # type: ignore[attr-defined]  # noqa: SLF001
            signal.raise_signal(signal.SIGUSR1)
        return False

    ran = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Event, "wait", wait)
        with pytest.raises(TimeoutError):
            helper_thread.start("helper", ran.set)
    assert ran.wait(60)


def test_a_thread_that_the_system_refuses_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(helper_thread, "_failures", LogThrottle())  # no other test has used it up
    assert not helper_thread.start("helper", print)
    assert "helper not started" in caplog.text
