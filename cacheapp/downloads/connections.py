"""Connections that another thread can cut, to addresses that were checked, with one TLS context.

urllib3 offers no way to end a request that waits for its answer's first byte. Here a connection
tells the transfer that uses it (`Line`), and whoever cancels shuts its socket down: the blocked
read returns at once, on Linux and macOS. What cannot be cut is name resolution and connecting;
those end with `connect_s`.

A host name is resolved (`resolving`), and the connection goes to the address that was checked: a name
that answers differently a moment later gains nothing.
"""

import contextlib
import functools
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from cacheapp.downloads import resolving
from cacheapp.errors import CacheappError

_USER_AGENT = "cacheapp/0.1"
_HEAD_BYTES = 64 * 1024

AddressCheck = Callable[[str, int, str], None]
"""Raises where this host and port may not be reached at this address."""


class Urllib3Replaced(CacheappError):
    """Another package has put itself in urllib3's place; what is promised here was not tested with it."""


def refuse_replaced(module: Any) -> None:
    """Raise `Urllib3Replaced` where `module` is urllib3-future, which niquests installs over urllib3.

    It has other connections: the addresses would go unchecked, and nothing could be cut.
    """
    if hasattr(module, "ResponsePromise") or hasattr(module, "AsyncPoolManager"):
        raise Urllib3Replaced(
            f"urllib3 {module.__version__} is urllib3-future, which niquests installs in urllib3's "
            "place: downloads are refused. Uninstall both, then install urllib3 again"
        )


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


def use(line: Line | None, check: AddressCheck | None = None) -> None:
    """Let the connections that this thread uses from now on be held by `line`.

    Those that it makes go to addresses that `check` lets pass; without it none is made.
    """
    _here.line = line
    _here.check = check


def raw_answer() -> http.client.HTTPResponse:
    """Return this thread's last answer as the standard library has it.

    Its `readinto` fills the caller's buffer; urllib3's reads into new bytes and copies them,
    which took 1.5 CPU seconds per GiB instead of 0.2.
    """
    found: http.client.HTTPResponse = _here.raw
    return found


class _Head:
    """Gives the lines of an answer's head, up to a limit for all of them together.

    http.client bounds a line and the number of lines, but not what goes before: a server may send
    `100 Continue` for ever.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _HEAD_BYTES
        self.close = file.close
        self.flush = file.flush

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.HTTPException(f"the answer's head has more than {_HEAD_BYTES} bytes")
        return line


class _Answer(http.client.HTTPResponse):
    """An answer whose head is bounded."""

    def begin(self) -> None:
        file = self.fp
        self.fp = _Head(file)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if isinstance(self.fp, _Head):  # it may have been closed meanwhile
                self.fp = file


class _Cuttable(HTTPConnection):
    """A connection whose socket is held by the line of the thread that uses it."""

    def _new_conn(self) -> socket.socket:
        try:
            found = resolving.find(self._dns_host, self.port)
        except (socket.gaierror, UnicodeError) as exc:
            cause = exc if isinstance(exc, socket.gaierror) else socket.gaierror(str(exc))
            raise NameResolutionError(self.host, self, cause) from exc
        for *_, where in found:  # all of them: one that is refused shows what the name is for
            _here.check(self.host, self.port, str(where[0]))
        return self._connected(found)

    def _connected(self, found: list[Any]) -> socket.socket:
        """Return a socket to the first address that answers."""
        last: OSError = OSError("no address")
        for family, kind, protocol, _, where in found:
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                timeout = self.timeout
                sock.settimeout(timeout if isinstance(timeout, int | float) else None)
                sock.connect(where)
            except OSError as exc:
                sock.close()
                last = exc
            else:
                return sock
        if isinstance(last, TimeoutError):
            raise ConnectTimeoutError(self, "connecting took too long") from last
        raise NewConnectionError(self, str(last)) from last

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
        answer = _Answer(*args, **kwargs)
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


def forget_tls() -> None:
    """Have the next client load the certificates anew."""
    _tls.cache_clear()


os.register_at_fork(after_in_child=forget_tls)


def client(threads: int) -> urllib3.PoolManager:
    """Return the connections of one job; `clear()` closes them."""
    refuse_replaced(urllib3)
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
