"""The proxy that stands for a network delays each direction, and loses nothing."""

import multiprocessing
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.backends.near_cache.network import forward

_ROUND_TRIP_S = 0.02


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection through the proxy: the client's end, and the server's."""
    target, source = tmp_path / "target", tmp_path / "source"
    context = multiprocessing.get_context("spawn")
    with (
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX) as between,
        socket.socket(socket.AF_UNIX) as client,
    ):
        for listener, path in ((server, target), (between, source)):
            listener.bind(str(path))
            listener.listen()
        proxy = context.Process(target=forward, args=(between, target, _ROUND_TRIP_S / 2))
        proxy.start()
        try:
            client.settimeout(60)
            client.connect(str(source))
            server.settimeout(60)
            with server.accept()[0] as far:
                far.settimeout(60)
                yield client, far
        finally:
            proxy.kill()
            proxy.join()
            proxy.close()


def _received(end: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length and (part := end.recv(2**16)):
        found += part
    return found


def test_a_round_trip_takes_at_least_its_time(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    began_s = time.monotonic()
    client.sendall(b"ask")
    assert _received(server, 3) == b"ask"
    assert time.monotonic() - began_s >= _ROUND_TRIP_S / 2
    server.sendall(b"answer")
    assert _received(client, 6) == b"answer"
    assert time.monotonic() - began_s >= _ROUND_TRIP_S


def test_bytes_arrive_in_order_and_then_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    sent = b"".join(number.to_bytes(4) for number in range(10_000))
    for start in range(0, len(sent), 1000):
        client.sendall(sent[start : start + 1000])
    client.shutdown(socket.SHUT_WR)
    assert _received(server, len(sent) + 1) == sent
    server.sendall(b"after the end of the other direction")
    server.close()
    assert _received(client, 100) == b"after the end of the other direction"
