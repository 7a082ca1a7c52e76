"""Reads a body from a TCP socket in large pieces, by one call of the system each.

A read returns with whatever has come: of a file that arrives at a few MiB a second, a packet or two.
Each return is a wait for the interpreter lock, a turn of Python and two more system calls; 32 such
files at 200 MiB/s made the other requests of their worker wait for milliseconds (`benchmarks.hosting`).
`MSG_WAITALL` has the kernel gather what was asked for, without the lock. It does so on a socket
that blocks, so the time-out is the kernel's as well (`SO_RCVTIMEO`).
"""

import _socket
import io
import socket
import struct
from collections.abc import Callable

from cacheapp import clock

WORTH_GATHERING_BYTES = 64 * 1024
"""A shorter body comes by a read or two anyway."""
_GATHER_S = 0.5
"""How long the kernel gathers at most. Silence may be noticed twice as late as that."""


def can_gather(sock: object) -> bool:
    """Return whether the socket is the kernel's: neither TLS, nor of a library like gevent."""
    return type(sock) is socket.socket and issubclass(socket.socket, _socket.socket)


def gathering(sock: socket.socket, silence_s: float) -> Callable[[memoryview], int]:
    """Return a `readinto` for an `io.BufferedReader` to read a body by.

    A reader asks for more than its own buffer holds only where it was itself asked for so much, and a
    body is never asked for beyond its end. What fills that buffer is read ahead: whatever there is.
    Raise `TimeoutError` when nothing comes for `silence_s`. The socket blocks from here on, until
    somebody sets its time-out.
    """
    sock.settimeout(None)
    seconds, fraction = divmod(min(silence_s, _GATHER_S), 1)
    timeval = struct.pack("@ll", int(seconds), max(1, int(fraction * 1e6)))  # zero: for ever
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)

    def readinto(view: memoryview) -> int:
        flags = socket.MSG_WAITALL if len(view) > io.DEFAULT_BUFFER_SIZE else 0
        give_up_s = clock.monotonic_s() + silence_s
        while True:
            try:
                return sock.recv_into(view, len(view), flags)
            except BlockingIOError:  # nothing came for as long as the kernel was to wait
                if clock.monotonic_s() >= give_up_s:
                    raise TimeoutError("timed out") from None

    return readinto
