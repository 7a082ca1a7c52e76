"""An HTTP origin on loopback that can be slow, truncate, lie, redirect or hang, like real ones.

The first part of the path selects the behaviour (`Origin._KINDS`); the rest is free, so any file
name can be requested. `python -m tests.origin` serves until its standard input is closed, for
programs that need it in a separate process.
"""

import array
import asyncio
import fcntl
import socket
import ssl
import struct
import sys
import termios
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from cacheapp.demo.origin import content
from tests.objects import Thing

_PIECE = 16 * 1024
Query = Mapping[str, str]
Kind = Callable[["Origin", asyncio.StreamWriter, Query], Awaitable[None]]


def body(query: Query) -> bytes:
    """Return the bytes of a file: selected by `n`, of length `bytes`."""
    return b"".join(content(int(query.get("n", "0")), int(query.get("bytes", "1000"))))


def unsent(sock: socket.socket) -> int:
    """Return the bytes that the other end has not acknowledged."""
    found = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, found)
    return found[0]


def _first(head: bytes, fields: Mapping[str, str]) -> int:
    """Return the position of the first byte of a response's body."""
    is_part = head.startswith(b"HTTP/1.1 206")
    return int(fields["range"].removeprefix("bytes=").partition("-")[0]) if is_part else 0


class Origin:
    """The server, in its own thread. A context manager.

    `_lock` guards `asked` and `connections`; only the event loop's thread uses the rest.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self.asked: list[tuple[str, str]] = []
        """Method and path of each request, in the order of arrival."""
        self.accept_encodings: set[str] = set()
        self.things: dict[str, Thing] = {}
        """The content of `/thing/<name>`; set it before the request."""
        self.connections = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="origin", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._served: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, backlog=1024, ssl=self._tls
        )
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}" if self._tls is None else f"https://localhost:{port}"
        self._ready.set()
        await self._over.wait()
        server.close()
        me = asyncio.current_task()
        for _ in range(100):  # until connections that are just being accepted have ended too
            if not (others := asyncio.all_tasks() - {me}):
                break
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(others, timeout=0.05)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with self._lock:
            self.connections += 1
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client disconnected, or the test is over
        finally:
            ends = writer.is_closing() or self._over.is_set()
            writer.transport.abort() if ends else writer.close()
            try:
                await writer.wait_closed()
            except (OSError, asyncio.CancelledError):  # unread data would delay the end
                writer.transport.abort()
            self._tasks.discard(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _version = head.split("\r\n", 1)[0].split(" ")
            parts = urlsplit(target)
            pairs = (line.partition(": ") for line in head.split("\r\n")[1:] if line)
            fields = {name.lower(): value for name, _, value in pairs}
            with self._lock:
                self.asked.append((method, target))
                self.accept_encodings.add(fields.get("accept-encoding", ""))
            query = dict(parse_qsl(parts.query))
            if parts.path.startswith("/thing/"):
                await self._thing(writer, self.things[parts.path.split("/")[2]], fields)
                continue
            await self._KINDS[parts.path.split("/")[1]](self, writer, query)
            await writer.drain()

    async def _file(self, writer: asyncio.StreamWriter, query: Query) -> None:
        await asyncio.sleep(int(query.get("delay_ms", "0")) / 1000)
        found = body(query)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(found)}\r\n"
        writer.write(head.encode() + query.get("header", "X-A: b").encode() + b"\r\n\r\n" + found)

    async def _thing(
        self, writer: asyncio.StreamWriter, thing: Thing, fields: Mapping[str, str]
    ) -> None:
        head, found, cut = thing.answer(fields)
        thing.active += 1
        thing.most_active = max(thing.most_active, thing.active)
        try:
            if thing.takes_s:
                await self._slowly(writer, thing, head, found, _first(head, fields))
            else:
                thing.sent.append(len(found))
                writer.write(head + found)
                await writer.drain()
        finally:
            thing.active -= 1
        if cut and thing.hang:
            thing.hanging += 1
            await self._over.wait()
        if cut and thing.reset:
            await self._reset(writer)
        elif cut:
            writer.close()

    async def _reset(self, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        while writer.transport.get_write_buffer_size() or unsent(sock):  # noqa: ASYNC110 (the kernel's)
            await asyncio.sleep(0.005)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def _slowly(
        self, writer: asyncio.StreamWriter, thing: Thing, head: bytes, found: bytes, first: int
    ) -> None:
        writer.write(head)
        number = len(thing.sent)
        thing.sent.append(0)
        gate = thing.gate
        size = thing.piece_bytes if gate is None else max(_PIECE, len(found) // 8)
        half = len(thing.versions[-1].body) // 2  # of the whole, however often it is resumed
        start = 0
        while start < len(found):
            is_gated = gate is not None and first + start >= half and not gate.is_set()
            count = 1 if is_gated else size
            if start and gate is not None and is_gated:
                await self._until_open(gate)
            elif start:  # not after the last one: the next request on the connection would wait
                await asyncio.sleep(thing.takes_s * size / len(found))
            piece = found[start : start + count]
            writer.write(piece)
            await writer.drain()
            thing.sent[number] += len(piece)
            start += count

    async def _until_open(self, gate: threading.Event) -> None:
        """Wait until a gate is open, but no longer than a second."""
        for _ in range(20):
            if gate.is_set():
                break
            await asyncio.sleep(0.05)

    async def _endless_head(self, writer: asyncio.StreamWriter, query: Query) -> None:
        line = f"{query['line']}\r\n".encode()
        for _ in range(100_000):
            writer.write(line)
            await writer.drain()

    async def _once(self, writer: asyncio.StreamWriter, query: Query) -> None:
        await self._file(writer, {**query, "header": "Connection: close"})
        writer.close()

    async def _cut(self, writer: asyncio.StreamWriter, query: Query) -> None:
        found = body(query)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(found))
        writer.write(found[: len(found) // 2])
        await writer.drain()
        writer.close()

    async def _more_than_announced(self, writer: asyncio.StreamWriter, query: Query) -> None:
        found = body(query)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(found))
        writer.write(found + b"and this, which was not announced")

    async def _lengths(self, writer: asyncio.StreamWriter, query: Query) -> None:
        lines = "".join(f"Content-Length: {value}\r\n" for value in query["say"].split(","))
        writer.write(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body(query))
        await writer.drain()
        writer.close()

    async def _raw(self, writer: asyncio.StreamWriter, query: Query) -> None:
        """Send the bytes of `say`, and then those of the file, if any; close the connection."""
        writer.write(query.get("say", "").encode("latin-1"))
        writer.write(body(query) if "bytes" in query else b"")
        await writer.drain()
        writer.close()

    async def _unframed(self, writer: asyncio.StreamWriter, query: Query) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body(query))
        await writer.drain()
        writer.close()

    async def _chunked(self, writer: asyncio.StreamWriter, query: Query) -> None:
        found = body(query)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        half = len(found) // 2
        writer.write(b"%x\r\n%b\r\n" % (half, found[:half]))
        writer.write(b"%x\r\n%b\r\n" % (len(found) - half, found[half:]))
        if "cut" in query or "end" in query:
            writer.write(query.get("end", "").encode())
            await writer.drain()
            writer.close()
            return
        writer.write(b"0\r\n\r\n")

    async def _status(self, writer: asyncio.StreamWriter, query: Query) -> None:
        writer.write(f"HTTP/1.1 {query['say']}\r\nContent-Length: 3\r\n\r\nno\n".encode())

    async def _redirect(self, writer: asyncio.StreamWriter, query: Query) -> None:
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {query['to']}\r\n".encode())
        writer.write(b"Content-Length: 0\r\n\r\n")

    async def _circle(self, writer: asyncio.StreamWriter, _query: Query) -> None:
        await self._redirect(writer, {"to": "/circle/again"})

    async def _hang(self, _writer: asyncio.StreamWriter, _query: Query) -> None:
        await self._over.wait()

    async def _hang_in_body(self, writer: asyncio.StreamWriter, query: Query) -> None:
        found = body(query)
        close = b"Connection: close\r\n" if "close" in query else b""
        writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (close, len(found)))
        writer.write(found[: len(found) // 2])
        await self._over.wait()

    async def _trickle(self, writer: asyncio.StreamWriter, query: Query) -> None:
        found = body(query)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(found))
        for byte in found:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async def _flaky(self, writer: asyncio.StreamWriter, query: Query) -> None:
        """Close the connection without a response, except for the first request on it."""
        if writer in self._served:
            writer.close()
            return
        self._served.add(writer)
        await self._file(writer, query)

    _KINDS: ClassVar[dict[str, Kind]] = {
        "file": _file,
        "once": _once,
        "flaky": _flaky,
        "cut": _cut,
        "more": _more_than_announced,
        "lengths": _lengths,
        "raw": _raw,
        "unframed": _unframed,
        "chunked": _chunked,
        "status": _status,
        "redirect": _redirect,
        "circle": _circle,
        "hang": _hang,
        "hang-in-body": _hang_in_body,
        "trickle": _trickle,
        "endless-head": _endless_head,
    }


def main() -> None:
    """Print the address and serve until standard input is closed."""
    with Origin() as origin:
        print(origin.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
