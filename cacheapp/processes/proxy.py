"""A proxy between clients and servers of Redis, which stands for a network.

`set` says how it forwards: replies late, those on connections that receive invalidations later still,
and replies to some writes not at all. While its process is stopped (SIGSTOP), connections stay open
and nothing arrives, as in a network that is partitioned. Bytes of one connection keep their order.
"""

import asyncio
import dataclasses
import functools
import json
import socket
import sys
from collections.abc import Mapping
from typing import Any, Self

from cacheapp.processes.servers import Server, child_env
from cacheapp.processes.waiting import until

_TRACKING = b"TRACKING"
_SET = b"$3\r\nSET\r\n"
_TIMEOUT_S = 60.0
_NEXT_S = 1e-6  # calls of an event loop that are due at the same moment have no order


@dataclasses.dataclass(frozen=True)
class Network:
    """How a proxy forwards.

    `replies_s`: the delay of what the server sends. `invalidations_s`: the delay on connections with
    `CLIENT TRACKING`, instead. `first_s`: the delay of the next message on each such connection, if it is
    another one; `set` then waits until these messages have come. `loses`: of so many commands SET, the
    reply to one is lost: the connection is closed `lost_after_s` after the reply.
    """

    replies_s: float = 0.0
    invalidations_s: float = 0.0
    first_s: float | None = None
    loses: int = 0
    lost_after_s: float = 0.0


class Proxy(Server):
    """A proxy in a process of its own.

    `routes`: the server that is reached from each place where clients connect. Both are the path of a
    socket file, or `address:port`.
    """

    def __init__(self, routes: Mapping[str, str]) -> None:
        super().__init__()
        self._control = self.directory / "control.sock"
        self._routes = routes

    def start(self) -> Self:
        """Start the proxy; return when clients can connect."""
        arguments = (json.dumps(dict(self._routes)), str(self._control))
        self._spawn([sys.executable, "-m", __name__, *arguments], env=child_env())
        until(self._control.exists, "the proxy", _TIMEOUT_S)
        return self

    def set(self, network: Network) -> None:
        """Forward like this from now on."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_TIMEOUT_S)
            client.connect(str(self._control))
            client.sendall(json.dumps(dataclasses.asdict(network)).encode() + b"\n")
            client.recv(1)


class _Forwarder:
    """The connections of a proxy; `network` may change at any time."""

    def __init__(self) -> None:
        self._sets = 0
        self._first = asyncio.Event()
        self._open: set[_Connection] = set()
        self._awaited: set[_Connection] = set()  # those whose next message `set` waits for
        self.network = Network()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Change the network as `Proxy.set` says."""
        self._first.clear()
        self._awaited = {connection for connection in self._open if connection.tracks}
        self.network = Network(**json.loads(await reader.readline()))
        if self.network.first_s is not None:
            await self._first.wait()
        writer.write(b"+")
        writer.close()

    async def serve(
        self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward one connection in both directions."""
        try:
            far_reader, far_writer = await _connect(target)
        except OSError:  # the server is down
            writer.close()
            return
        connection = _Connection()
        self._open.add(connection)
        await asyncio.gather(
            self._requests(reader, far_writer, connection),
            self._replies(far_reader, writer, connection),
        )
        self._open.discard(connection)
        self._awaited.discard(connection)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: "_Connection",
    ) -> None:
        try:
            await self._forward_requests(reader, writer, connection)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _forward_requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: "_Connection",
    ) -> None:
        while data := await reader.read(2**16):
            connection.tracks |= _TRACKING in data
            if self.network.loses and _SET in data:
                self._sets += 1
                connection.loses |= self._sets % self.network.loses == 0
            writer.write(data)

    async def _replies(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: "_Connection",
    ) -> None:
        try:
            await self._forward_replies(reader, writer, connection)
        except ConnectionError:
            pass
        finally:
            loop = asyncio.get_running_loop()
            loop.call_at(max(connection.due_s + _NEXT_S, loop.time()), writer.close)

    async def _forward_replies(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: "_Connection",
    ) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(2**16):
            network = self.network
            if connection.loses:
                await asyncio.sleep(network.lost_after_s)
                break
            delay_s = self._delay_of(connection) if connection.tracks else network.replies_s
            connection.due_s = max(connection.due_s + _NEXT_S, loop.time() + delay_s)
            loop.call_at(connection.due_s, writer.write, data)

    def _delay_of(self, connection: "_Connection") -> float:
        """Return the delay of a message on a connection that receives invalidations."""
        network, is_first = self.network, connection.network is not self.network
        connection.network = network
        if not is_first or network.first_s is None:
            return network.invalidations_s
        self._awaited.discard(connection)
        if not self._awaited:
            self._first.set()
        return network.first_s


@dataclasses.dataclass(eq=False)
class _Connection:
    """What the requests on a connection say about the replies."""

    tracks: bool = False
    loses: bool = False
    due_s: float = 0.0
    """When the last reply is forwarded, in the time of the event loop."""
    network: Network | None = None
    """That of its latest message, if it receives invalidations."""


async def _connect(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = target.rpartition(":")
    if port.isdecimal():
        return await asyncio.open_connection(host, int(port))
    return await asyncio.open_unix_connection(target)


async def _listen(place: str, serve: Any) -> asyncio.Server:
    host, _, port = place.rpartition(":")
    if port.isdecimal():
        return await asyncio.start_server(serve, host, int(port))
    return await asyncio.start_unix_server(serve, place)


async def forward(routes: Mapping[str, str], control: str) -> None:
    """Accept connections at each place, and forward them; take changes at `control`."""
    forwarder = _Forwarder()
    for place, target in routes.items():
        await _listen(place, functools.partial(forwarder.serve, target))
    server = await asyncio.start_unix_server(forwarder.control, control)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(forward(json.loads(sys.argv[1]), sys.argv[2]))
