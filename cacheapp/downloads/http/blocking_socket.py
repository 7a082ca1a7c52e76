"""Asks and reads by a TCP socket that blocks, and has the kernel keep the time.

A socket with a time-out of Python's takes two system calls for each: a poll, and what it was asked
for. Before each Python gives its lock away, and after each it waits for it: with 32 threads and two
processors that was a third of what a small file took. Here the time-outs are the kernel's
(`SO_RCVTIMEO`, `SO_SNDTIMEO`), and one call is enough.

A read returns with whatever has come: of a file that arrives at a few MiB a second, a packet or two.
32 such files at 200 MiB/s made the other requests of their worker wait for milliseconds
(`benchmarks.downloads.hosting`). So a long read is gathered by the kernel (`MSG_WAITALL`), without the lock.
"""

import _socket
import io
import socket
import struct

_GATHER_S = 0.5
"""How long the kernel gathers at most. Silence may be noticed twice as late as that."""


class BlockingSocket:
    """A connected socket, from here on without a time-out of Python's; for one thread at a time.

    All raise `TimeoutError` when nothing goes on for as long as `begin` was told.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        self._sock = sock
        self._silence_s = self._wait_s = 0.0

    def begin(self, silence_s: float) -> None:
        """Say for how long the other side may be silent in what comes next."""
        if self._silence_s != silence_s:
            self._silence_s = silence_s
            self._set(socket.SO_SNDTIMEO, silence_s)
        self._wait(silence_s)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        try:
            self._sock.sendall(data)
        except BlockingIOError:
            raise TimeoutError("timed out") from None

    def readinto(self, view: memoryview) -> int:
        """Read for an `io.BufferedReader`: into its own buffer, or past it.

        A reader asks for more than its buffer holds only where it was itself asked for so much, and a
        body is never asked for beyond its end: that is gathered. What fills the buffer is read
        ahead, whatever there is.
        """
        flags = 0
        if len(view) > io.DEFAULT_BUFFER_SIZE:
            flags = socket.MSG_WAITALL
            self._wait(min(self._silence_s, _GATHER_S))
        silent_s = 0.0
        while True:
            try:
                return self._sock.recv_into(view, len(view), flags)
            except BlockingIOError:  # nothing came for as long as the kernel was to wait
                silent_s += self._wait_s
                if silent_s >= self._silence_s:
                    raise TimeoutError("timed out") from None

    def is_quiet(self) -> bool:
        """Return whether nothing has come, not even the end: an answer to what nobody has asked."""
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _wait(self, wait_s: float) -> None:
        if self._wait_s != wait_s:
            self._wait_s = wait_s
            self._set(socket.SO_RCVTIMEO, wait_s)

    def _set(self, option: int, wait_s: float) -> None:
        seconds, fraction = divmod(wait_s, 1)
        timeval = struct.pack("@ll", int(seconds), max(1, int(fraction * 1e6)))  # zero: for ever
        self._sock.setsockopt(socket.SOL_SOCKET, option, timeval)


def blocking(sock: object) -> BlockingSocket | None:
    """Return a socket that blocks, if it is the kernel's: neither TLS, nor of a library like gevent."""
    if type(sock) is socket.socket and issubclass(socket.socket, _socket.socket):
        return BlockingSocket(sock)
    return None
