"""An HTTP proxy on loopback: `CONNECT` for https, and requests with an absolute URI for http.

It resolves every name to loopback, so that names that exist nowhere lead to a test's origin.
"""

import base64
import contextlib
import socket
import socketserver
import threading
from typing import Self
from urllib.parse import urlsplit

_TIMEOUT_S = 60.0


class Proxy:
    """The server, in its own threads. A context manager. `_lock` guards `requests`."""

    def __init__(self, password: str = "", refuses: str = "") -> None:
        self.requests: list[tuple[str, str]] = []
        """Method and target of each request, in the order of arrival."""
        self.refuses = refuses
        """The status line's end with which each request is refused; empty: none is."""
        self._expected = f"Basic {base64.b64encode(password.encode()).decode()}" if password else ""
        self._lock = threading.Lock()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = _TIMEOUT_S

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    outer._serve(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://{password + '@' if password else ''}127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_TIMEOUT_S)

    def _serve(self, client: socketserver.StreamRequestHandler) -> None:
        line = client.rfile.readline().decode("latin-1")
        if not line:
            return
        method, target, _ = line.split(" ")
        fields = {}
        while (field := client.rfile.readline().decode("latin-1")) not in {"\r\n", ""}:
            name, _, value = field.partition(":")
            fields[name.lower()] = value.strip()
        with self._lock:
            self.requests.append((method, target))
        refused = self.refuses
        if self._expected and fields.get("proxy-authorization") != self._expected:
            refused = "407 Proxy Authentication Required"
        if refused:
            client.wfile.write(f"HTTP/1.1 {refused}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        with socket.create_connection(("127.0.0.1", parts.port or 80), _TIMEOUT_S) as server:
            if method == "CONNECT":
                client.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = parts._replace(scheme="", netloc="").geturl()
                kept = {k: v for k, v in fields.items() if not k.startswith("proxy-")}
                lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in kept.items())]
                server.sendall("\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1"))
            _relay(client.connection, server)


def _relay(client: socket.socket, server: socket.socket) -> None:
    back = threading.Thread(target=_copy, args=(client, server), daemon=True)
    back.start()
    _copy(server, client)
    back.join(_TIMEOUT_S)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
