"""Requests per second that Gunicorn with 4 workers answers, one server for each cache.

The load is that of one thread in this process: a number of connections that stay open, each with
one request on its way. It takes its part of the processors from the server, alike for all.

Each worker has the same number of connections. Which worker accepts a connection is chance, and it serves
all requests of it: without this, one turn has four workers at work, and the next one two.
"""

import collections
import contextlib
import functools
import selectors
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measuring import ROOT, Turn, progress, take_turns
from cacheapp.processes.servers import GunicornServer

_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_OK = b"HTTP/1.1 200 "
_WORKER = b"\r\nWorker: "
_LATE_S = 60.0


def measure(
    names: Sequence[str],
    rounds: int,
    seconds: float,
    workers: int,
    connections: int,
    also: Mapping[str, str] | None = None,
) -> dict[str, list[float]]:
    """Return the requests per second, one figure a round, by cache. `also`: more environment."""
    with contextlib.ExitStack() as stack:
        turns: dict[str, Turn] = {}
        servers = []
        for name in names:
            env = {
                "BENCHMARK_ALIAS": name,
                "WEB_CONCURRENCY": str(workers),
                # While connections are opened, those that are there already wait.
                "GUNICORN_CMD_ARGS": "--keep-alive 60",
                "MAX_REQUESTS": "0",  # a worker that is replaced takes its LocMemCache along
                **(also or {}),
            }
            server = GunicornServer("benchmarks.backends.shared_cache.site:application", ROOT, env)
            servers.append(stack.enter_context(server).start())
            turn = functools.partial(_turn, server, workers, connections, seconds)
            # The first answers come when Django is loaded, and fill each worker's own cache. A connection
            # that is made before Gunicorn has set TCP_NODELAY waits 40 ms for each answer.
            turn()
            turns[name] = turn
            progress(f"Gunicorn answers with {name}")
        samples = take_turns(turns, rounds)
        for server in servers:  # all at once: each takes a second or two
            server.send(signal.SIGTERM)
    progress("pages")
    return samples


def _turn(server: GunicornServer, workers: int, connections: int, seconds: float) -> list[float]:
    try:
        return [load(server.port, workers, connections, seconds)]
    except RuntimeError as exc:
        exc.add_note(server.output()[-2000:])
        raise


def load(port: int, workers: int, connections: int, seconds: float) -> float:
    """Return the requests answered per second; an answer other than 200 is an error.

    The time begins when each worker has answered: a server that is still starting is waited for.
    """
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for client in connect(stack, port, workers, connections // workers):
            client.sendall(_REQUEST)
            selector.register(client, selectors.EVENT_READ, bytearray())
        answered = 0
        began = now = time.perf_counter()
        while now - began < seconds:
            answered += _answered(selector)
            now = time.perf_counter()
    return answered / (now - began)


def connect(
    stack: contextlib.ExitStack, port: int, workers: int, share: int
) -> Sequence[socket.socket]:
    """Open connections until each worker has its share; close the others."""
    clients: list[socket.socket] = []
    of_worker: collections.Counter[bytes] = collections.Counter()
    ends_s = time.monotonic() + _LATE_S
    while len(clients) < workers * share:
        if time.monotonic() > ends_s:
            raise RuntimeError(
                f"{workers} workers expected within {_LATE_S:g} s; found {of_worker}"
            )
        # Many at once: alone, it would be accepted by the worker that wakes first, each time.
        for client in [_connection(stack, port) for _ in range(workers * share)]:
            worker = _worker_of(client)
            if of_worker[worker] < share:
                of_worker[worker] += 1
                clients.append(client)
            else:
                client.close()
    return clients


def _connection(stack: contextlib.ExitStack, port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), _LATE_S)
    stack.enter_context(contextlib.closing(client))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(_REQUEST)
    return client


def _worker_of(client: socket.socket) -> bytes:
    """Take the answer to a first request; return which worker it comes from."""
    answer = bytearray()
    while not is_whole(answer):
        _receive(client, answer)
    return bytes(answer).partition(_WORKER)[2].partition(b"\r\n")[0]


def _receive(client: socket.socket, answer: bytearray) -> None:
    received = client.recv(65536)
    answer += received
    if not received:
        raise RuntimeError(f"the server closed a connection; before that came {answer!r}")


def _answered(selector: selectors.BaseSelector) -> int:
    """Take what has come, ask again on each connection whose answer is whole; return how many."""
    ready = selector.select(_LATE_S)
    if not ready:
        raise RuntimeError(f"no answer on any connection for {_LATE_S:g} s")
    count = 0
    for key, _ in ready:
        client: Any = key.fileobj
        answer: bytearray = key.data
        _receive(client, answer)
        if is_whole(answer):
            answer.clear()
            client.sendall(_REQUEST)
            count += 1
    return count


def is_whole(answer: bytearray) -> bool:
    """Return whether head and body are there; an answer other than 200 is an error."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    if not head.startswith(_OK):
        raise RuntimeError(f"expected 200, received {bytes(answer[:500])!r}")
    _, named, length = bytes(head).lower().partition(b"content-length:")
    if not named:
        raise RuntimeError(f"expected a Content-Length, received {bytes(answer[:500])!r}")
    return len(body) >= int(length.partition(b"\r\n")[0])
