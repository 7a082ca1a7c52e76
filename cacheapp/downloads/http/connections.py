"""Connections that another thread can interrupt, to checked addresses, with one TLS context.

urllib3 cannot abort a request that waits for the first byte of its response. Here a connection
registers its socket with the transfer that uses it (`SocketHandle`), and a cancellation shuts the
socket down: the blocked read returns at once, on Linux and macOS. Name resolution and connecting
cannot be interrupted; they end within `connect_s`.

A host name is resolved once (`resolver`), and the connection goes to the address that was checked,
so a name that changes its address between check and connection (DNS rebinding) gains nothing.
"""

import contextlib
import functools
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
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
from cacheapp.downloads.http.errors import TransferFailed, translate_error
from cacheapp.downloads.http.proxies import Proxies, Proxy
from cacheapp.downloads.http.response import StrictHTTPResponse
from cacheapp.downloads.http.retry import RETRYABLE_STATUSES
from cacheapp.errors import CacheappError
from cacheapp.thread_lock import reentrant_lock

_TUNNEL_STATUS = re.compile(r"\b[1-5][0-9]{2}\b")

AddressCheck = Callable[[str, int, str], None]
"""Raises if a connection to this host and port must not use this address."""


class Urllib3Replaced(CacheappError):
    """Another package has replaced urllib3; the guarantees of this module do not hold with it."""


def reject_replacement(module: Any) -> None:
    """Raise `Urllib3Replaced` if `module` is urllib3-future, which niquests installs over urllib3.

    Its connections differ: addresses would not be checked, and transfers could not be interrupted.
    """
    if hasattr(module, "ResponsePromise") or hasattr(module, "AsyncPoolManager"):
        raise Urllib3Replaced(
            f"urllib3 {module.__version__} is urllib3-future, which niquests installs in urllib3's "
            "place: downloads are refused. Uninstall both, then install urllib3 again"
        )


class SocketHandle:
    """The open socket of one transfer, which other threads may shut down.

    `_lock` guards `_sock` and `_is_shut_down`. It is held while the socket is shut down and while a
    connection closes it, so that a shutdown cannot hit a connection that has moved to another
    transfer, nor a reused file descriptor. It is re-entrant because the garbage collector may close
    abandoned connections during any of these methods.
    """

    def __init__(self) -> None:
        self._lock = reentrant_lock()
        self._sock: socket.socket | None = None
        self._is_shut_down = False

    def attach(self, sock: socket.socket) -> None:
        """Register the socket in use; shut it down if `shut_down` was called before."""
        with self._lock:
            self._sock = sock
            if self._is_shut_down:
                self._shutdown_socket()

    def detach(self) -> None:
        """Forget the socket: `shut_down` no longer affects it."""
        with self._lock:
            self._sock = None

    def shut_down(self) -> None:
        """Wake the thread that reads or writes; it finds the connection closed."""
        with self._lock:
            self._is_shut_down = True
            self._shutdown_socket()

    def closing(self) -> AbstractContextManager[Any]:
        """Return the lock to hold while the socket is closed."""
        return self._lock

    def _shutdown_socket(self) -> None:
        if self._sock is None:
            return
        try:
            # Below TLS: its own shutdown would change state that the reading thread uses.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:  # already closed, by either side
            return


_here = threading.local()


def bind(handle: SocketHandle | None, check: AddressCheck | None = None) -> None:
    """Register the sockets that this thread uses from now on with `handle`.

    New connections go only to addresses that `check` accepts; without `check`, none is made.
    """
    _here.handle = handle
    _here.check = check


class _CancellableConnection(HTTPConnection):
    """A connection that registers its socket with the `SocketHandle` of the current thread."""

    _blocking: blocking_socket.BlockingSocket | None = None
    is_to_proxy = False
    """Whether its address is the proxy's, which the operator has named: it is not checked."""

    def _new_conn(self) -> socket.socket:
        if not self.is_to_proxy:
            return self._new_socket()
        try:
            return self._new_socket()
        except (NewConnectionError, ConnectTimeoutError) as exc:
            message = f"no connection to the proxy: {translate_error(exc)}"
            raise TransferFailed(message, retryable=True) from exc

    def _new_socket(self) -> socket.socket:
        try:
            found = resolver.resolve(self._dns_host, self.port)
        except (socket.gaierror, UnicodeError) as exc:
            cause = exc if isinstance(exc, socket.gaierror) else socket.gaierror(str(exc))
            raise NameResolutionError(self.host, self, cause) from exc
        # Restore the brackets that urllib3 removed: origins are written with them.
        host = f"[{self.host}]" if ":" in self.host else self.host
        # All of them: one refused address condemns the name.
        for *_, where in () if self.is_to_proxy else found:
            _here.check(host, self.port, str(where[0]))
        return self._connected(found)

    def _connected(self, found: list[Any]) -> socket.socket:
        """Return a socket connected to the first address that accepts."""
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
            raise ConnectTimeoutError(self, "connecting timed out") from last
        raise NewConnectionError(self, str(last)) from last

    def send_request(self, head: bytes, read_s: float) -> StrictHTTPResponse:
        """Send a request without a body; return the response once its head was read.

        Bypasses `HTTPConnection.request` and `urlopen`, which took half of the CPU time of a small
        file, and whose responses copy what they read: 1.5 CPU seconds per GiB instead of 0.2.
        """
        self.was_open = self.sock is not None
        if self.sock is None:
            self.connect()
            self._blocking = blocking_socket.wrap_socket(self.sock)
        self._attach()
        if (plain := self._blocking) is not None:
            plain.begin(read_s)
            plain.send(head)
        else:
            if self.sock.gettimeout() != read_s:
                self.sock.settimeout(read_s)
            self.sock.sendall(head)
        response = StrictHTTPResponse(self.sock, method="GET")
        try:
            if plain is not None:
                response.read_with(plain.readinto)
            response.begin()
        except BaseException:
            response.close()
            raise
        return response

    @property
    def is_connected(self) -> bool:
        """Whether it is open, and the server has neither closed it nor sent unrequested data."""
        if self.sock is None or self._blocking is None:
            return super().is_connected
        return self._blocking.is_idle()

    def has_unread_bytes(self) -> bool:
        """Return whether TLS has decrypted bytes that were not read.

        They are no longer in the kernel, where urllib3 looks before it reuses a connection.
        """
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def _attach(self) -> None:
        handle = getattr(_here, "handle", None)
        if handle is not None and self.sock is not None:
            handle.attach(self.sock)

    def close(self) -> None:
        """Close the socket, while no other thread is shutting it down."""
        handle = getattr(_here, "handle", None)
        with handle.closing() if handle is not None else contextlib.nullcontext():
            super().close()


class _CancellableTLSConnection(_CancellableConnection, HTTPSConnection):
    """The same over TLS, possibly in the tunnel of a proxy."""

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except TimeoutError:
            raise
        except OSError as exc:
            found = _TUNNEL_STATUS.search(str(exc))
            retryable = found is None or int(found[0]) in RETRYABLE_STATUSES
            message = f"the proxy opened no tunnel: {exc}"
            raise TransferFailed(message, retryable=retryable) from exc


class BorrowedConnection:
    """A pooled connection, reserved for one request."""

    def __init__(self, pool: urllib3.HTTPConnectionPool, connection: Any) -> None:
        self._pool = pool
        self.connection: _CancellableConnection = connection

    def return_to_pool(self) -> None:
        """Make it available again: open, unless part of a response is left on it."""
        self._pool._put_conn(self.connection)  # noqa: SLF001 (as above)

    def close(self) -> None:
        """Close it; the next request opens it again."""
        self.connection.close()
        self.return_to_pool()


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _CancellableConnection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _CancellableTLSConnection


class _PoolManager(urllib3.PoolManager):
    proxies: Proxies | None = None


def proxy_for(pools: urllib3.PoolManager, scheme: str, host: str, port: int) -> Proxy | None:
    """Return the proxy through which these pools connect to a host; `None` without one."""
    proxies = pools.proxies if isinstance(pools, _PoolManager) else None
    return None if proxies is None else proxies.find(scheme, host, port)


def borrow(
    pools: urllib3.PoolManager, host: str, port: int, scheme: str, proxy: Proxy | None = None
) -> BorrowedConnection:
    """Return a connection for one request, preferably an open one.

    Over `proxy`, it leads to the proxy for `http`, and through a tunnel to the host for `https`.
    """
    tunnel = proxy is not None and scheme == "https"
    key = (scheme, host, port) if proxy is None or tunnel else (scheme, "", 0)
    place: dict[str, Any] = {"scheme": scheme, "host": host, "port": port}
    if proxy is not None:
        place |= {"host": proxy.host, "port": proxy.port}
    if scheme == "https":
        place["ssl_context"] = _tls()
    while True:
        # A key of our own: urllib3's contains all options of a pool, and here they never differ.
        pool = pools.connection_from_pool_key(
            (*key, proxy),  # type: ignore[arg-type]
            {**pools.connection_pool_kw, **place},
        )
        # Closed by another thread, which removed the pools from the manager before: get a new one.
        with contextlib.suppress(ClosedPoolError):
            connection: Any = pool._get_conn()  # noqa: SLF001 (as `urlopen` does it)
            connection.is_to_proxy = proxy is not None
            if proxy is not None and tunnel and connection.sock is None:
                connection.set_tunnel(host, port, proxy.headers)
            return BorrowedConnection(pool, connection)


@functools.cache
def _tls() -> ssl.SSLContext:
    # Loading the CA bundle takes 20 ms of CPU: once per process that needs it, not per connection,
    # so never set `ca_certs`. Created after the fork: a child process creates its own.
    context = urllib3.util.create_urllib3_context()
    context.load_default_certs()  # also of SSL_CERT_FILE and SSL_CERT_DIR
    loaded = {os.environ.get("SSL_CERT_FILE", ""), ""}
    for variable in ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
        if (path := os.environ.get(variable, "")) not in loaded:
            loaded.add(path)
            try:
                is_folder = Path(path).is_dir()
                context.load_verify_locations(
                    cafile=None if is_folder else path, capath=path if is_folder else None
                )
            except (OSError, ssl.SSLError) as exc:
                raise TransferFailed(f"{variable} is {path}: {exc.strerror or exc}") from exc
    return context


def prepare() -> None:
    """Load the certificates now, so that the first job does not delay its worker's requests.

    OpenSSL reads them with the interpreter lock held. The first job reports errors in them.
    """
    with contextlib.suppress(
        OSError, RuntimeError, TransferFailed
    ):  # RuntimeError: gevent patched too late
        _tls()


def forget_tls() -> None:
    """Make the next client load the certificates again."""
    _tls.cache_clear()


os.register_at_fork(after_in_child=forget_tls)


def pool_manager(threads: int, proxies: Proxies | None = None) -> urllib3.PoolManager:
    """Return the connection pools of one job; `clear()` closes them."""
    reject_replacement(urllib3)
    manager = _PoolManager(
        num_pools=64,
        maxsize=threads,
        block=False,
        retries=False,
    )
    manager.proxies = proxies
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return manager
