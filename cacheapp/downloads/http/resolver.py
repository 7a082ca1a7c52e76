"""Host names looked up once for all threads that need them at the same time, and for some seconds.

Two hundred threads that begin together would read `/etc/hosts` and ask the name server two hundred
times. What is kept is what the resolver said, not that it is allowed: every connection checks the
address that it goes to.
"""

import os
import socket
import threading
from typing import Any

from cacheapp import clock

KEEP_S = 10.0
_MOST = 1000

Addresses = list[tuple[Any, ...]]
"""As `socket.getaddrinfo` gives them."""


class Resolver:
    """`_lock` guards the dicts; a name's own lock is held while it is looked up, by one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, int], tuple[float, Addresses]] = {}
        self._asking: dict[tuple[str, int], threading.Lock] = {}

    def find(self, host: str, port: int) -> Addresses:
        """Return the host's addresses; raise `socket.gaierror` or `UnicodeError` as the resolver does."""
        key = (host, port)
        with self._lock:
            known = self._known(key)
            if known is not None:
                return known
            asking = self._asking.setdefault(key, threading.Lock())
        with asking:
            with self._lock:
                known = self._known(key)
            if known is not None:
                return known
            addresses: Addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
            with self._lock:
                if len(self._found) >= _MOST:
                    self._found.clear()
                    self._asking.clear()  # who waits for one of these looks up once more
                self._found[key] = (clock.monotonic_s() + KEEP_S, addresses)
            return addresses

    def _known(self, key: tuple[str, int]) -> Addresses | None:
        until_s, addresses = self._found.get(key, (0.0, []))
        return addresses if clock.monotonic_s() < until_s else None


_resolver = Resolver()


def find(host: str, port: int) -> Addresses:
    """Return the host's addresses, from this process's resolver."""
    return _resolver.find(host, port)


def _anew() -> None:
    global _resolver  # noqa: PLW0603 (a lock that another thread held at a fork stays held)
    _resolver = Resolver()


os.register_at_fork(after_in_child=_anew)
