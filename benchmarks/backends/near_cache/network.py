"""A network: a proxy that delays each direction of connections between socket files."""

import asyncio
import contextlib
import selectors
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring.processes import context
from cacheapp.processes.waiting import until


async def _forward(source: Path, target: Path, delay_s: float) -> None:
    loop = asyncio.get_running_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            loop.call_later(delay_s, writer.write, data)
        loop.call_later(delay_s, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(target)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_unix_server(serve, source)
    await server.serve_forever()


def _run(source: Path, target: Path, delay_s: float) -> None:
    # epoll would round each delay up to a millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_forward(source, target, delay_s))


@contextlib.contextmanager
def proxy(source: Path, target: Path, round_trip_s: float) -> Iterator[None]:
    """Forward from one socket file to another, half of the round trip late in each direction."""
    process = context.Process(target=_run, args=(source, target, round_trip_s / 2), daemon=True)
    process.start()
    try:
        until(source.exists, "the proxy", 60)
        yield
    finally:
        process.kill()
        process.join()
