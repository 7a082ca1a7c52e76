"""A slow origin and a slow proxy, each an asyncio process of its own.

`python -m cacheapp.lab.slow_server FD` responds to `GET /SECONDS/…` with a file that takes that long
to arrive, on the listening socket that it inherits. With `PORT SECONDS` after `FD`, it forwards all
data to that port and delays each response by so many seconds. Uses only the standard library.
"""

import asyncio
import contextlib
import resource
import socket
import sys

PIECES = 4
BODY = bytes(16_384)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
_GONE = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond to the requests of one connection."""
    with contextlib.suppress(*_GONE), contextlib.closing(writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            seconds = float(head.split()[1].split(b"/")[1])
            writer.write(_HEAD % len(BODY))
            size = len(BODY) // PIECES
            for start in range(0, len(BODY), size):
                await asyncio.sleep(seconds / PIECES)
                writer.write(BODY[start : start + size])
                await writer.drain()


class Line:
    """A proxy of another server that delays every response by `seconds`."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection, in both directions."""
        with contextlib.suppress(*_GONE), contextlib.closing(writer):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            with contextlib.closing(far_writer):
                requested = asyncio.Event()
                forward = asyncio.ensure_future(self._forward(reader, far_writer, requested))
                try:
                    await self._return(far_reader, writer, requested)
                finally:
                    forward.cancel()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requested: asyncio.Event
    ) -> None:
        with contextlib.suppress(*_GONE):
            await self._copy(reader, writer, requested)
        writer.close()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requested: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            requested.set()
            writer.write(data)
            await writer.drain()

    async def _return(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requested: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            if requested.is_set():  # the first bytes of a response
                requested.clear()
                await asyncio.sleep(self._seconds)
            writer.write(data)
            await writer.drain()


async def main(descriptor: int, port: int | None, seconds: float) -> None:
    """Serve until the process ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    answer = serve if port is None else Line(port, seconds).serve
    server = await asyncio.start_server(answer, sock=socket.socket(fileno=descriptor), backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    numbers = sys.argv[1:]
    asyncio.run(
        main(int(numbers[0]), *((int(numbers[1]), float(numbers[2])) if numbers[1:] else (None, 0)))
    )
