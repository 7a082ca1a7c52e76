"""A proxy between clients and a server on socket files, which stands for a network.

It delays what it forwards, from `slow_down` on. While its process is stopped (SIGSTOP), connections
stay open and nothing arrives, as in a network that is partitioned.
"""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Self

from cacheapp.processes.servers import Server, child_env
from cacheapp.processes.waiting import until


class Proxy(Server):
    """A proxy of the server at `target`, in a process of its own."""

    def __init__(self, target: Path, delay_s: float) -> None:
        super().__init__()
        self.socket = self.directory / "proxy.sock"
        self.url = f"unix://{self.socket}?db=0"
        self._target = target
        self._delay_s = delay_s

    def start(self) -> Self:
        """Start the proxy; return when clients can connect."""
        arguments = (self.socket, self._target, self._delay_s)
        self._spawn([sys.executable, "-m", __name__, *map(str, arguments)], env=child_env())
        until(self.socket.exists, "the proxy", 30)
        return self

    def slow_down(self) -> None:
        """Delay what the server sends, from now on."""
        self.send(signal.SIGUSR1)


async def forward(source: Path, target: Path, slow_s: float) -> None:
    """Accept connections at `source`, and forward each direction, in order; see `Proxy`."""
    loop = asyncio.get_running_loop()
    delay_s = 0.0

    def slow_down() -> None:
        nonlocal delay_s
        delay_s = slow_s

    loop.add_signal_handler(signal.SIGUSR1, slow_down)

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool
    ) -> None:
        try:
            while data := await reader.read(2**16):
                loop.call_later(delay_s if slow else 0.0, writer.write, data)
        except ConnectionError:
            pass
        finally:
            loop.call_later(delay_s if slow else 0.0, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(target)
        except OSError:  # the server is down
            writer.close()
            return
        await asyncio.gather(
            pump(reader, far_writer, slow=False), pump(far_reader, writer, slow=True)
        )

    server = await asyncio.start_unix_server(serve, source)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(forward(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
