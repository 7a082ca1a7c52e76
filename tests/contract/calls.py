"""Calls of `get_or_set` in threads of one process, and a factory that waits for its test."""

import threading
from collections.abc import Callable
from typing import Any

DEADLINE_S = 60


class Factory:
    """A factory that computes when the test allows it, and counts its calls."""

    def __init__(self, *results: Any) -> None:
        self._results = list(results)
        self._lock = threading.Lock()
        self.running = threading.Event()
        self.go_on = threading.Event()
        self.runs = 0

    def __call__(self) -> Any:
        with self._lock:
            result = self._results[min(self.runs, len(self._results) - 1)]
            self.runs += 1
        self.running.set()
        assert self.go_on.wait(DEADLINE_S)
        if isinstance(result, Exception):
            raise result
        return result


class Calling(threading.Thread):
    """A thread that calls, and keeps what it returned or raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except Exception as exc:  # noqa: BLE001 (the test looks at it)
            self.result = exc

    def outcome(self) -> Any:
        self.join(DEADLINE_S)
        assert not self.is_alive()
        return self.result
