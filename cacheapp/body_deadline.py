"""A deadline for request bodies under Gunicorn: a slow client occupies a thread only so long.

Gunicorn reads a body in the thread of its request, for as long as the client takes. `within` makes
a `pre_request` hook for `gunicorn.conf.py` that bounds the whole body, not each read.
"""

from collections.abc import Callable
from typing import Any

from cacheapp import clock


class _BodySocket:
    """The socket of one request, whose reads end together at a deadline."""

    def __init__(self, request: Any, sock: Any, seconds: float) -> None:
        self.sock = sock
        self._request = request
        self._seconds = seconds
        self._deadline_s = clock.monotonic_s() + seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def recv(self, size: int) -> bytes:
        """Read as the socket does; raise `TimeoutError` at the deadline."""
        before = self.sock.gettimeout()
        try:
            self.sock.settimeout(self._left_s())
            data: bytes = self.sock.recv(size)
        except TimeoutError:
            self._request.force_close()  # where the next request starts is unknown
            raise TimeoutError(f"the body did not arrive within {self._seconds:g} s") from None
        finally:
            self.sock.settimeout(before)
        return data

    def _left_s(self) -> float:
        if (left_s := self._deadline_s - clock.monotonic_s()) <= 0:
            raise TimeoutError
        return left_s


def within(seconds: float) -> Callable[[Any, Any], None]:
    """Return a `pre_request` hook that bounds the reading of each body."""

    def pre_request(worker: Any, request: Any) -> None:
        del worker
        unreader = getattr(request, "unreader", None)
        sock = getattr(unreader, "sock", None)  # other workers (ASGI, HTTP/2) read elsewhere
        if unreader is not None and sock is not None:
            unreader.sock = _BodySocket(request, sock, seconds)

    return pre_request


def end(worker: Any, request: Any, environ: Any, response: Any) -> None:
    """Remove the deadline, as `post_request`: the connection may bring further requests."""
    del worker, environ, response
    unreader = getattr(request, "unreader", None)
    if isinstance(bounded := getattr(unreader, "sock", None), _BodySocket):
        unreader.sock = bounded.sock  # type: ignore[union-attr]  # it has the attribute
