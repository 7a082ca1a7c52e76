"""A private memcached on a Unix socket, which ends with the program that started it."""

import os
import shutil
import socket
from typing import Self

from cacheapp.processes.servers import Server, ServerFailed
from cacheapp.processes.waiting import until

_ANSWERS_WITHIN_S = 5.0


class MemcachedServer(Server):
    """A memcached without a port, whose socket only this user can open."""

    def __init__(self) -> None:
        binary = shutil.which("memcached")
        if binary is None:
            raise ServerFailed(
                "no memcached server: memcached is not on PATH. On Debian, run as root: "
                "apt install memcached"
            )
        super().__init__()
        self._binary = binary
        self.socket = self.directory / "memcached.sock"
        self.location = f"unix:{self.socket}"
        """What Django's backends for memcached expect as LOCATION."""

    def start(self, within_s: float = 60.0) -> Self:
        """Start the server; return when it responds."""
        user = ("-u", "root") if os.geteuid() == 0 else ()  # as root it insists on a name
        self._spawn([self._binary, "-s", str(self.socket), "-a", "0700", *user])
        try:
            until(self._answers, "memcached to respond", within_s)
        except TimeoutError as exc:
            raise self._failed(str(exc)) from None
        return self

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise self._failed("memcached ended while starting")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWERS_WITHIN_S)
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"version\r\n")
                return connection.recv(100).startswith(b"VERSION")
            except OSError:
                return False
