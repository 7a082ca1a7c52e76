"""Ports for servers that cannot inherit a socket that is bound already."""

import contextlib
import random
import socket
from pathlib import Path


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free at this moment.

    It is below those that the kernel gives to connections: of them, one that was free a moment
    ago may be the end of another program's connection when the server binds it.
    """
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    below = int(ephemeral.split()[0])
    while True:
        # Other programs draw as well.
        number = random.SystemRandom().randrange(below - 12_000, below)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", number)):
            return number
