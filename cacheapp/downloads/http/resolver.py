"""Resolves each host name once for all threads that need it, and keeps the result for some seconds.

Otherwise two hundred threads that begin together would read `/etc/hosts` and query the name server
two hundred times. The cache holds addresses, not permissions: every connection checks the address
it uses.
"""

import os
import socket
import threading
from typing import Any

from cacheapp import clock

KEEP_S = 10.0
_MAX_NAMES = 1000

Addresses = list[tuple[Any, ...]]
"""In the form of `socket.getaddrinfo`."""


class Resolver:
    """`_lock` guards the dicts; the thread that resolves a name holds a lock for that name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, int], tuple[float, Addresses]] = {}
        self._lookups: dict[tuple[str, int], threading.Lock] = {}

    def resolve(self, host: str, port: int) -> Addresses:
        """Return the host's addresses; raise `socket.gaierror` or `UnicodeError`."""
        key = (host, port)
        with self._lock:
            known = self._known(key)
            if known is not None:
                return known
            lookup = self._lookups.setdefault(key, threading.Lock())
        with lookup:
            with self._lock:
                known = self._known(key)
            if known is not None:
                return known
            addresses: Addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
            with self._lock:
                if len(self._found) >= _MAX_NAMES:
                    self._found.clear()
                    self._lookups.clear()  # threads that wait for one of these resolve it again
                self._found[key] = (clock.monotonic_s() + KEEP_S, addresses)
            return addresses

    def _known(self, key: tuple[str, int]) -> Addresses | None:
        until_s, addresses = self._found.get(key, (0.0, []))
        return addresses if clock.monotonic_s() < until_s else None


_resolver = Resolver()


def resolve(host: str, port: int) -> Addresses:
    """Return the host's addresses, from this process's resolver."""
    return _resolver.resolve(host, port)


def _reset() -> None:
    global _resolver  # noqa: PLW0603 (another thread may have held the lock at the fork)
    _resolver = Resolver()


os.register_at_fork(after_in_child=_reset)
