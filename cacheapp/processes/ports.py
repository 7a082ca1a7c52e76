"""Ports for servers that cannot inherit a socket that is bound already."""

import random
import socket
from pathlib import Path

from cacheapp.backends.local.interruptions import suppress_failure

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_UNPRIVILEGED = 1024


def free_port(ephemeral: Path = _EPHEMERAL) -> int:
    """Return a port of 127.0.0.1 that is free at this moment.

    It is below those that the kernel gives to connections: of them, one that was free a moment
    ago may be the end of another program's connection when the server binds it. If there are none
    below, it is one of them.
    """
    below = int(ephemeral.read_text().split()[0])
    lowest = max(_UNPRIVILEGED, below - 12_000)
    while True:
        # Other programs draw as well.
        number = random.SystemRandom().randrange(lowest, below) if lowest < below else 0
        with suppress_failure(OSError), socket.create_server(("127.0.0.1", number)) as found:
            return int(found.getsockname()[1])
