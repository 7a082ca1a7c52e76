"""Holds what other threads want of a transfer: that it ends for good, or only its present attempt.

The running thread finds that out at its next `check` or chunk. It may be waiting for its connection
or for a rate limit, so both are woken.
"""

import threading

from cacheapp.downloads.http.connections import SocketHandle
from cacheapp.downloads.http.errors import TransferFailed


class StopState:
    """The stop state of one transfer. `lock` guards all fields.

    Fields may be read without it by the running thread, which then sees them possibly a moment
    late. `waits`: whether the transfer has a rate limit to wait for.
    """

    def __init__(self, *, waits: bool) -> None:
        self.lock = threading.Lock()
        self.handle = SocketHandle()
        self.aborted: str | None = None
        """Why the transfer must end."""
        self.stalled: str | None = None
        """Why the present attempt must end."""
        self.keep = False
        """Whether an abort leaves the partial file."""
        self._wakeup = threading.Event() if waits else None

    def abort(self, reason: str, *, keep: bool) -> None:
        """End the transfer; the first reason counts. The caller holds `lock`."""
        if self.aborted is None:
            self.aborted, self.keep = reason, keep
        self._shut_down()

    def stall(self, reason: str) -> None:
        """End the present attempt. The caller holds `lock`."""
        self.stalled = reason
        self._shut_down()

    def _shut_down(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()
        self.handle.shut_down()

    def begin(self) -> SocketHandle:
        """Begin an attempt; return the handle of its connection."""
        with self.lock:
            self.handle, self.stalled = SocketHandle(), None
            if self._wakeup is not None:
                self._wakeup.clear()  # an abort is found by `check`
            return self.handle

    @property
    def is_requested(self) -> bool:
        """Whether the attempt must end."""
        return self.aborted is not None or self.stalled is not None

    def check(self) -> None:
        """Raise `TransferFailed` if the attempt must end."""
        with self.lock:
            if self.is_requested:
                raise TransferFailed("stopped")

    def wait(self, wait_s: float) -> None:
        """Wait for a rate limit; raise `TransferFailed` if the attempt must end."""
        if self._wakeup is None:
            raise AssertionError("a transfer without a rate limit waits for one")
        self._wakeup.wait(wait_s)
        self.check()
