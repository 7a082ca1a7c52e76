import fcntl
import itertools
import json
import socket
import sys
import termios
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cacheapp.processes.waiting import until
from cacheapp.processes.workers import AnswerLost, Connection, NotReached, Workers


def unread_bytes(connection: Connection) -> int:
    data = fcntl.ioctl(connection._http.sock, termios.FIONREAD, bytes(4))  # noqa: SLF001
    return int.from_bytes(data, sys.byteorder)


def test_a_question_that_hangs_can_be_given_up_from_another_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Connection(f"http://127.0.0.1:{silent.getsockname()[1]}")
        raised: list[BaseException] = []

        def ask() -> None:
            try:
                connection.ask("POST", "/", {"delta": 1})
            except AnswerLost as exc:
                raised.append(exc)

        thread = threading.Thread(target=ask)
        thread.start()
        peer, _ = silent.accept()
        with peer:
            peer.settimeout(30)
            assert b"POST / HTTP/1.1" in peer.recv(65536)
            peer.sendall(b"HTTP/1.1 200 OK\r\n")  # and no more
            until(lambda: unread_bytes(connection) == 0, "it to read the beginning")
            connection.abort()
            thread.join(60)  # well before the time that an answer may take
            assert not thread.is_alive()
        assert [type(exc) for exc in raised] == [AnswerLost]
        with pytest.raises(NotReached, match="aborted"):
            connection.ask("GET", "/")


def test_a_change_whose_answer_is_lost_is_not_sent_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection(f"http://127.0.0.1:{server.getsockname()[1]}")
        requests: list[bytes] = []

        def hang_up() -> None:
            peer, _ = server.accept()
            with peer:
                requests.append(peer.recv(65536))
            server.settimeout(1)
            with pytest.raises(TimeoutError):
                server.accept()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(AnswerLost, match="POST /incr: "):
            connection.ask("POST", "/incr", {"delta": 1})
        thread.join(30)
        assert not thread.is_alive()
        assert len(requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{"',
    ],
    ids=["nothing", "half a line", "no headers", "half a body"],
)
def test_an_answer_that_breaks_off_is_lost(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=reply_once, args=[server, answer])
        thread.start()
        with pytest.raises(AnswerLost):
            connection.ask("GET", "/")
        thread.join(30)


def reply_once(server: socket.socket, answer: bytes) -> None:
    peer, _ = server.accept()
    with peer:
        peer.recv(65536)
        peer.sendall(answer)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"pid": 7}', 200, {"pid": 7}),
        (b"HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\n<html>", 500, {}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", 200, {}),
    ],
)
def test_an_answer_that_is_no_json_object_is_still_an_answer(
    answer: bytes, status: int, body: dict[str, int]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=reply_once, args=[server, answer])
        thread.start()
        found = connection.ask("GET", "/")
        thread.join(30)
        connection.close()
    assert (found.status, found.body) == (status, body)
    assert found.pid == body.get("pid", 0)


def test_a_connection_that_was_closed_while_other_workers_were_searched_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cacheapp.processes.workers.FRESH_S", 0.0)  # the search takes long
    first_batch, numbers = range(8), itertools.count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.number = next(numbers)

        def do_GET(self) -> None:
            body = json.dumps({"pid": 1 if self.number in first_batch else 1 + self.number % 2})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())
            self.close_connection = self.number in first_batch  # silently, as an idle one

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            with Workers(f"http://127.0.0.1:{server.server_address[1]}", count=2) as workers:
                pids = workers.together(lambda _number, connection: connection.ask("GET", "/").pid)
        finally:
            server.shutdown()
            serving.join(60)
    assert sorted(pids) == [1, 2]
