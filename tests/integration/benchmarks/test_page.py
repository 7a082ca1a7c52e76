"""The load of the page gives each worker the same work."""

import contextlib
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from benchmarks.backends.shared_cache import page

_WORKERS = 4
_UNEVEN = (1, 1, 1, 2, 1, 3, 3, 1, 1, 1, 4, 1)
"""Which worker accepts a connection: as chance has it."""


class _Server:
    """Answers the first request of each connection, and notes whose it is; `opened`: the others are closed."""

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        self.accepted: list[tuple[int, socket.socket]] = []

    def serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            for worker in itertools.cycle(_UNEVEN):
                client, _ = self._listener.accept()
                self.accepted.append((worker, client))
                client.recv(65536)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nWorker: {worker}\r\n\r\n"
                client.sendall(head.encode())
                client.sendall(b"ok")

    def open_ones(self) -> list[int]:
        """Return the workers of the connections that the client has not closed."""
        found = []
        for worker, client in self.accepted:
            client.settimeout(0)
            try:
                client.recv(1)
            except BlockingIOError:
                found.append(worker)
        return found


@pytest.fixture
def server() -> Iterator[_Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = _Server(listener)
        thread = threading.Thread(target=made.serve)
        thread.start()
        yield made
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for _, client in made.accepted:
        client.close()


def test_each_worker_gets_the_same_number_of_connections(server: _Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = page.connect(stack, server.port, _WORKERS, 2)
        assert len(clients) == 2 * _WORKERS
        assert Counter(server.open_ones()) == dict.fromkeys(range(1, _WORKERS + 1), 2)
