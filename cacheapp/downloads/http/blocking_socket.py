"""Sends and receives on a blocking TCP socket with timeouts that the kernel enforces.

A Python socket with a timeout makes two system calls per operation, a poll and the operation
itself, and releases and reacquires the interpreter lock around each. With 32 threads on two
processors, that was a third of the time of a small file. Here the timeouts are the kernel's
(`SO_RCVTIMEO`, `SO_SNDTIMEO`), and one call is enough.

A read returns whatever has arrived: for a file at a few MiB/s, a packet or two. 32 such files at
200 MiB/s delayed the other requests of their worker by milliseconds
(`benchmarks.downloads.hosting`). So the kernel collects long reads (`MSG_WAITALL`), without the
interpreter lock.
"""

import _socket
import socket
import struct

READ_AHEAD_BYTES = 8 * 1024
"""Size of the buffer in front of a socket. Larger reads go past it."""
GATHER_S = 0.5
"""How long data is collected at most. Silence may be detected up to twice as late."""


class BlockingSocket:
    """A connected socket without a Python timeout. For one thread at a time.

    All methods raise `TimeoutError` if the peer is silent for longer than set with `begin`.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        self._sock = sock
        self._silence_s = self._wait_s = 0.0

    def begin(self, silence_s: float) -> None:
        """Set how long the peer may be silent during the next operations."""
        if self._silence_s != silence_s:
            self._silence_s = silence_s
            self._set_timeout(socket.SO_SNDTIMEO, silence_s)
        self._set_wait(silence_s)

    def send(self, data: bytes) -> None:
        """Send all data."""
        try:
            self._sock.sendall(data)
        except BlockingIOError:
            raise TimeoutError("timed out") from None

    def readinto(self, view: memoryview) -> int:
        """Read for an `io.BufferedReader`: into its buffer, or past it.

        The reader passes a view larger than its buffer only if its own caller requested that much,
        and callers never read beyond the end of a body. Such reads are collected. A read that fills
        the buffer is a read-ahead and returns whatever has arrived.
        """
        flags = 0
        if len(view) > READ_AHEAD_BYTES:
            flags = socket.MSG_WAITALL
            self._set_wait(min(self._silence_s, GATHER_S))
        silent_s = 0.0
        while True:
            try:
                return self._sock.recv_into(view, len(view), flags)
            except BlockingIOError:  # the kernel's timeout passed without data
                silent_s += self._wait_s
                if silent_s >= self._silence_s:
                    raise TimeoutError("timed out") from None

    def is_idle(self) -> bool:
        """Return whether nothing has arrived: neither unrequested data nor the end of stream."""
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _set_wait(self, wait_s: float) -> None:
        if self._wait_s != wait_s:
            self._wait_s = wait_s
            self._set_timeout(socket.SO_RCVTIMEO, wait_s)

    def _set_timeout(self, option: int, wait_s: float) -> None:
        seconds, fraction = divmod(wait_s, 1)
        # Zero would mean no timeout.
        timeval = struct.pack("@ll", int(seconds), max(1, int(fraction * 1e6)))
        self._sock.setsockopt(socket.SOL_SOCKET, option, timeval)


def wrap_socket(sock: object) -> BlockingSocket | None:
    """Return a blocking socket, or `None` for TLS and for sockets of libraries like gevent."""
    if type(sock) is socket.socket and issubclass(socket.socket, _socket.socket):
        return BlockingSocket(sock)
    return None
