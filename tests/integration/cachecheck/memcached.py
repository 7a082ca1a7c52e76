"""A memcached of one process: the part of its text protocol that pymemcache uses for the check."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator


class _Handler(socketserver.StreamRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        """Answer commands until the client leaves."""
        while line := self.rfile.readline().split():
            self.wfile.write(self._answer(line[0], line[1:]))

    def _answer(self, command: bytes, words: list[bytes]) -> bytes:  # noqa: PLR0911 (a case each)
        with self.server.guard:
            values = self.server.values
            match command:
                case b"set" | b"add":
                    value = self.rfile.read(int(words[3]) + 2)[:-2]
                    if command == b"add" and words[0] in values:
                        return b"NOT_STORED\r\n"
                    values[words[0]] = value
                    return b"STORED\r\n"
                case b"get" | b"gets":
                    found = [
                        b"VALUE %s 0 %d\r\n%s\r\n" % (key, len(values[key]), values[key])
                        for key in words
                        if key in values
                    ]
                    return b"".join([*found, b"END\r\n"])
                case b"delete":
                    return b"DELETED\r\n" if values.pop(words[0], None) else b"NOT_FOUND\r\n"
                case b"touch":
                    return b"TOUCHED\r\n" if words[0] in values else b"NOT_FOUND\r\n"
                case b"incr":
                    if words[0] not in values:
                        return b"NOT_FOUND\r\n"
                    values[words[0]] = b"%d" % (int(values[words[0]]) + int(words[1]))
                    return values[words[0]] + b"\r\n"
            return b"ERROR\r\n"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.values: dict[bytes, bytes] = {}
        self.guard = threading.Lock()


@contextlib.contextmanager
def memcached() -> Iterator[int]:
    """Run the server; yield its port."""
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
