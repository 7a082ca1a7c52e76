"""A receiver of webhooks on loopback, which answers as scripted and keeps what it has received."""

import dataclasses
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclasses.dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class WebhookReceiver:
    """The server, in its own threads. A context manager.

    `_lock` guards `received` and `script`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received: list[Received] = []
        self.script: list[str] = []
        """Status, or "hang" or "redirect", of the next requests; then 204 for each."""
        self._over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                """Ignore a client that has disconnected."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            self.received.append(Received(request.path, headers, body))
            answer = self.script.pop(0) if self.script else "204"
        if answer == "hang":
            self._over.wait()
            return
        request.send_response(302 if answer == "redirect" else int(answer))
        if answer == "redirect":
            request.send_header("Location", "/elsewhere")
        request.end_headers()
