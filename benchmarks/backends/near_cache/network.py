"""A network: a proxy that delays each direction of connections between socket files.

It is one process with little to do for each message: what it computes is missing from the processors of the
caches that are measured, and what it is late adds to each round trip.
"""

import contextlib
import ctypes
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring.processes import context

_PR_SET_TIMERSLACK = 29


class _Network:
    """Forwards what it receives `delay_s` later, in the order in which it came.

    `_peers`: the other end of each connection that is read. A closed one is still written to, by what is due.
    """

    def __init__(self, listener: socket.socket, target: Path, delay_s: float) -> None:
        self._listener, self._target, self._delay_s = listener, target, delay_s
        self._peers: dict[socket.socket, socket.socket] = {}
        self._due: deque[tuple[float, socket.socket, bytes]] = deque()

    def run(self) -> None:
        """Forward for ever."""
        while True:
            left_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            # Not epoll, which rounds each delay up to a millisecond.
            for ready in select.select([self._listener, *self._peers], (), (), left_s)[0]:
                if ready is self._listener:
                    self._connect()
                else:
                    self._receive(ready)
            now_s = time.monotonic()
            while self._due and self._due[0][0] <= now_s:
                _, peer, data = self._due.popleft()
                with contextlib.suppress(OSError):  # it has been closed
                    self._forward(peer, data)

    def _connect(self) -> None:
        near, far = self._listener.accept()[0], socket.socket(socket.AF_UNIX)
        far.connect(str(self._target))
        self._peers |= {near: far, far: near}

    def _receive(self, ready: socket.socket) -> None:
        try:
            data = ready.recv(2**16)
        except OSError:
            data = b""
        peer = self._peers[ready] if data else self._peers.pop(ready)
        self._due.append((time.monotonic() + self._delay_s, peer, data))

    @staticmethod
    def _forward(peer: socket.socket, data: bytes) -> None:
        if data:
            peer.sendall(data)
        else:
            peer.shutdown(socket.SHUT_WR)


def forward(listener: socket.socket, target: Path, delay_s: float) -> None:
    """Forward from the connections that the listener accepts to a socket file, and back, for ever."""
    # Else the kernel may wake it 50 µs late.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    _Network(listener, target, delay_s).run()


@contextlib.contextmanager
def proxy(source: Path, target: Path, round_trip_s: float) -> Iterator[None]:
    """Forward from one socket file to another, half of the round trip late in each direction."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source))
        listener.listen()
        process = context.Process(
            target=forward, args=(listener, target, round_trip_s / 2), daemon=True
        )
        process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
