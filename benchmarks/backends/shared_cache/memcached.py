"""A memcached of our own, on a socket file, for the peers that need one."""

import os
import pwd
import shutil
import socket
from typing import Self

from cacheapp.processes.servers import Server, ServerFailed
from cacheapp.processes.waiting import until

_MEGABYTES = 1024


class MemcachedServer(Server):
    """Debian's memcached with room for everything that is measured, so that it evicts nothing."""

    def __init__(self) -> None:
        binary = shutil.which("memcached")
        if binary is None:
            raise ServerFailed("no memcached on PATH (Debian's package is called memcached)")
        super().__init__()
        self._binary = binary
        self.socket = self.directory / "memcached.sock"
        self.url = f"unix:{self.socket}"

    def start(self) -> Self:
        """Start the server; return when it takes connections."""
        user = pwd.getpwuid(os.getuid()).pw_name
        options = ("-a", "700", "-m", str(_MEGABYTES), "-u", user)
        self._spawn([self._binary, "-s", str(self.socket), *options])
        try:
            until(self._answers, "memcached to take connections")
        except TimeoutError as exc:
            raise self._failed(str(exc)) from None
        return self

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise self._failed("memcached ended as it started")
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0
