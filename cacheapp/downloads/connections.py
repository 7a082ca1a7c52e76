"""Connections that another thread can cut, and one TLS context for the whole process.

urllib3 offers no way to end a request that waits for its answer's first byte. Here a connection
tells the transfer that uses it (`Line`), and whoever cancels shuts its socket down: the blocked
read returns at once, on Linux and macOS. What cannot be cut is name resolution and connecting;
those end with `connect_s`.
"""

import contextlib
import functools
import http.client
import os
import socket
import ssl
import threading
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

_USER_AGENT = "cacheapp/0.1"


class Line:
    """The socket that one transfer has open at the moment, so that other threads can cut it.

    `_lock` guards `_sock` and `_cut`, and is held while the socket is shut down and while a
    connection closes it: a cut does not hit a connection that has gone on to another transfer, nor
    a descriptor that was closed and belongs to something else by now. (One close is out of reach:
    an answer with `Connection: close` closes its socket at its end by itself. Should a cut come in
    between the two machine instructions, it is the kernel's `shutdown` of a stranger's socket.)
    Re-entrant, because the collector may close abandoned connections amid any of these methods.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sock: socket.socket | None = None
        self._cut = False

    def hold(self, sock: socket.socket) -> None:
        """Take note of the socket in use; cut it at once if the cut came first."""
        with self._lock:
            self._sock = sock
            if self._cut:
                self._shut()

    def release(self) -> None:
        """Forget the socket: from here on a cut does not touch it."""
        with self._lock:
            self._sock = None

    def cut(self) -> None:
        """Wake the thread that reads or writes; it finds the connection closed."""
        with self._lock:
            self._cut = True
            self._shut()

    def closing(self) -> threading.RLock:
        """Return what to hold while the socket is closed."""
        return self._lock

    def _shut(self) -> None:
        if self._sock is None:
            return
        try:
            # Past TLS: its own shutdown would touch state that the reading thread is using.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:  # closed already, by either side
            return


_here = threading.local()


def use(line: Line | None) -> None:
    """Let the connections that this thread uses from now on be held by `line`."""
    _here.line = line


def raw_answer() -> http.client.HTTPResponse:
    """Return this thread's last answer as the standard library has it.

    Its `readinto` fills the caller's buffer; urllib3's reads into new bytes and copies them,
    which took 1.5 CPU seconds per GiB instead of 0.2.
    """
    found: http.client.HTTPResponse = _here.raw
    return found


class _Cuttable(HTTPConnection):
    """A connection whose socket is held by the line of the thread that uses it."""

    def request(self, *args: Any, **kwargs: Any) -> None:
        _here.reused = self.sock is not None
        self._hold()
        super().request(*args, **kwargs)

    def connect(self) -> None:
        super().connect()
        self._hold()

    def _hold(self) -> None:
        line = getattr(_here, "line", None)
        if line is not None and self.sock is not None:
            line.hold(self.sock)

    def close(self) -> None:
        # Called also by an answer that says `Connection: close`, before its body is read: the
        # socket stays open for that, so the line does not forget it here.
        line = getattr(_here, "line", None)
        with line.closing() if line is not None else contextlib.nullcontext():
            super().close()

    def response_class(self, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        """Stand in for the class that `http.client` makes answers of, to keep hold of them."""
        answer = http.client.HTTPResponse(*args, **kwargs)
        _here.raw = answer
        return answer


class _CuttableTLS(_Cuttable, HTTPSConnection):
    """The same over TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Cuttable


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _CuttableTLS


def was_reused() -> bool:
    """Return whether this thread's last request went out on a connection that was open before."""
    return getattr(_here, "reused", False)


@functools.cache
def _tls() -> ssl.SSLContext:
    # Loading the CA bundle takes 20 ms of CPU: once per process, not once per connection, and so
    # never `ca_certs` beside it. Made after the fork: a child that inherits one asks for its own.
    context = urllib3.util.create_urllib3_context()
    context.load_default_certs()
    return context


os.register_at_fork(after_in_child=_tls.cache_clear)


def client(threads: int) -> urllib3.PoolManager:
    """Return the connections of one job; `clear()` closes them."""
    manager = urllib3.PoolManager(
        num_pools=64,
        maxsize=threads,
        block=False,
        retries=False,
        ssl_context=_tls(),
        # Identity: what arrives is what is stored, and its length is the one announced.
        headers={"Accept-Encoding": "identity", "User-Agent": _USER_AGENT},
    )
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return manager
