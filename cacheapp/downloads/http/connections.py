"""Connections that another thread can cut, to addresses that were checked, with one TLS context.

urllib3 offers no way to end a request that waits for its answer's first byte. Here a connection
tells the transfer that uses it (`SocketHandle`), and whoever cancels shuts its socket down: the blocked
read returns at once, on Linux and macOS. What cannot be cut is name resolution and connecting;
those end with `connect_s`.

A host name is resolved (`resolving`), and the connection goes to the address that was checked: a name
that answers differently a moment later gains nothing.
"""

import contextlib
import functools
import os
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
)

from cacheapp.downloads.http import blocking_socket, resolver
from cacheapp.downloads.http.response import StrictHTTPResponse
from cacheapp.errors import CacheappError

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


class SocketHandle:
    """The socket that one transfer has open at the moment, so that other threads can cut it.

    `_lock` guards `_sock` and `_cut`, and is held while the socket is shut down and while a
    connection closes it: a cut does not hit a connection that has gone on to another transfer, nor
    a descriptor that was closed and belongs to something else by now.
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


def use(handle: SocketHandle | None, check: AddressCheck | None = None) -> None:
    """Let the connections that this thread uses from now on be held by `handle`.

    Those that it makes go to addresses that `check` lets pass; without it none is made.
    """
    _here.handle = handle
    _here.check = check


class _Cuttable(HTTPConnection):
    """A connection whose socket is held by the line of the thread that uses it."""

    _blocking: blocking_socket.BlockingSocket | None = None

    def _new_conn(self) -> socket.socket:
        try:
            found = resolver.find(self._dns_host, self.port)
        except (socket.gaierror, UnicodeError) as exc:
            cause = exc if isinstance(exc, socket.gaierror) else socket.gaierror(str(exc))
            raise NameResolutionError(self.host, self, cause) from exc
        # In brackets again, which urllib3 has taken off: so origins are written.
        host = f"[{self.host}]" if ":" in self.host else self.host
        for *_, where in found:  # all of them: one that is refused shows what the name is for
            _here.check(host, self.port, str(where[0]))
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

    def ask(self, head: bytes, read_s: float) -> StrictHTTPResponse:
        """Send a request that has no body; return the answer once its head was read.

        Past `HTTPConnection.request` and `urlopen`, which took half of the CPU of a small file, and
        whose answers copy what they read: 1.5 CPU seconds per GiB instead of 0.2.
        """
        self.was_open = self.sock is not None
        if self.sock is None:
            self.connect()
            self._blocking = blocking_socket.blocking(self.sock)
        self._hold()
        if (blocking := self._blocking) is not None:
            blocking.begin(read_s)
            blocking.send(head)
        else:
            if self.sock.gettimeout() != read_s:
                self.sock.settimeout(read_s)
            self.sock.sendall(head)
        response = StrictHTTPResponse(self.sock, method="GET")
        try:
            if blocking is not None:
                response.read_by(blocking.readinto)
            response.begin()
        except BaseException:
            response.close()
            raise
        return response

    @property
    def is_connected(self) -> bool:
        """Whether it is open, and the server has neither closed it nor sent what nobody asked for."""
        if self.sock is None or self._blocking is None:
            return super().is_connected
        return self._blocking.is_quiet()

    def has_pending(self) -> bool:
        """Return whether TLS has decrypted bytes that nobody has read.

        They are no longer in the kernel, where urllib3 looks before it uses a connection again.
        """
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def _hold(self) -> None:
        handle = getattr(_here, "handle", None)
        if handle is not None and self.sock is not None:
            handle.hold(self.sock)

    def close(self) -> None:
        """Close the socket; no other thread is just cutting it meanwhile."""
        handle = getattr(_here, "handle", None)
        with handle.closing() if handle is not None else contextlib.nullcontext():
            super().close()


class _CuttableTLS(_Cuttable, HTTPSConnection):
    """The same over TLS."""


class BorrowedConnection:
    """A connection that is ours for one request."""

    def __init__(self, pool: urllib3.HTTPConnectionPool, connection: Any) -> None:
        self._pool = pool
        self.connection: _Cuttable = connection

    def give_back(self) -> None:
        """Let others use it: open, if nothing of an answer is left on it, or closed."""
        self._pool._put_conn(self.connection)  # noqa: SLF001 (as above)

    def close(self) -> None:
        """Close it; it is opened anew when it is used again."""
        self.connection.close()
        self.give_back()


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Cuttable


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _CuttableTLS


def borrow(client: urllib3.PoolManager, host: str, port: int, scheme: str) -> BorrowedConnection:
    """Return a connection for one request, an open one if there is one."""
    place: dict[str, Any] = {"scheme": scheme, "host": host, "port": port}
    if scheme == "https":
        place["ssl_context"] = _tls()
    while True:
        # Under a key of our own: urllib3's has all that pools may differ in, and here they do not.
        pool = client.connection_from_pool_key(
            (scheme, host, port),  # type: ignore[arg-type]
            {**client.connection_pool_kw, **place},
        )
        # Closed: another thread has thrown the pools away since; they are forgotten before that.
        with contextlib.suppress(ClosedPoolError):
            return BorrowedConnection(pool, pool._get_conn())  # noqa: SLF001 (as `urlopen` does it)


@functools.cache
def _tls() -> ssl.SSLContext:
    # Loading the CA bundle takes 20 ms of CPU: once per process that needs it, not once per connection,
    # and so never `ca_certs` beside it. Made after the fork: a child that inherits one asks for its own.
    context = urllib3.util.create_urllib3_context()
    context.load_default_certs()
    return context


def prepare() -> None:
    """Load the certificates now: the first job would hold up its worker's requests with it.

    OpenSSL reads them with the interpreter lock held. What is wrong with them is the first job's to say.
    """
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: gevent has patched too late
        _tls()


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
    )
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return manager
