"""Parses the head and framing of a response strictly and within bounds, and reads its body.

`http.client` limits the length of a line and the number of lines, but neither the informational
responses before the head (a server may send `100 Continue` for ever) nor the trailer after the last
chunk. It parses fields with the e-mail parser, which took a tenth of the CPU time of a small file.

It also accepts what only a truncation explains: a chunk size without the end of its line (`0` may
be the start of `0005`), and a last chunk without the empty line after it. A chunked body has no
announced length, so here it is complete only if every byte of its end has arrived.

Its `readinto` fills the whole view or raises, so a broken connection costs the bytes that arrived
before. Here every byte that arrived is returned, and the error is raised by the next call.
"""

import http.client
import io
import re
from collections.abc import Callable
from typing import Any

from cacheapp import clock
from cacheapp.downloads.http.blocking_socket import GATHER_S, READ_AHEAD_BYTES

HEAD_BYTES = 64 * 1024
_LINE_BYTES = 64 * 1024
_INFORMATIONAL = range(100, 200)
_SWITCHING = 101
_WITHOUT_BODY = frozenset([204, 304])
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Not allowed in a field value: it might end the line, here or where the value is sent back."""


class MalformedHead(http.client.HTTPException):
    """The head of a response does not follow HTTP/1: a later attempt would find the same."""


class _Head:
    """Reads lines, up to a limit for all of them together."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = HEAD_BYTES
        self.close = file.close
        self.flush = file.flush

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise MalformedHead(f"the response head has more than {HEAD_BYTES} bytes")
        return line


def read_fields(head: Any) -> list[tuple[str, str]]:
    """Return lower-case names and values, in order, up to the empty line.

    Raise `HTTPException` for an invalid field: guessing might read another response than the server
    has sent. A folded line continues the previous one (RFC 9112, 5.2).
    """
    found: list[tuple[str, str]] = []
    while (line := head.readline(_LINE_BYTES)) not in {b"\r\n", b"\n"}:
        if not line.endswith(b"\n"):
            raise http.client.HTTPException("the response head is truncated")
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode("latin-1")
        if CONTROLS.search(text):
            raise MalformedHead(f"the response head has the line {text[:80]!r}")
        if text[0] in " \t" and found:
            name, value = found.pop()
            found.append((name, f"{value} {text.strip()}"))
            continue
        name, colon, value = text.partition(":")
        if not colon or not name or name != name.strip():
            raise MalformedHead(f"the response head has the line {text.strip()[:80]!r}")
        found.append((name.lower(), value.strip()))
    return found


def _read_nothing(_buffer: object) -> None:
    """Behave like a socket on which nothing has arrived."""


class StrictHTTPResponse(http.client.HTTPResponse):
    """A response with a bounded head and trailer, and its fields in a plain dict."""

    fields: dict[str, str]
    """By lower-case name; the last value of a repeated field."""
    lengths: list[str]
    """All `Content-Length` values."""
    has_surplus = False
    """Whether more than the body had been read from the socket when the body ended."""

    def __init__(self, sock: Any, method: str = "GET") -> None:
        super().__init__(sock, method=method)
        # A buffer of our own size: what is larger than it is read without a copy.
        self.fp = io.BufferedReader(self.fp.detach(), READ_AHEAD_BYTES)
        self._failure: Exception | None = None
        self._has_read_ahead = True

    def begin(self) -> None:
        """Read the head; informational responses before it are skipped."""
        file = self.fp
        self.fp = _Head(file)  # type: ignore[assignment]
        try:
            version, status, reason, found = self._read_final_head()
        finally:
            if isinstance(self.fp, _Head):  # it may have been closed
                self.fp = file
        self.status, self.reason = status, reason.strip()
        self.fields = dict(found)
        lengths = (value for name, value in found if name == "content-length")
        # A list of equal lengths is one length (RFC 9110, 8.6): some proxies merge two fields.
        self.lengths = [part.strip() for value in lengths for part in value.split(",")]
        self._frame(version, [value for name, value in found if name == "transfer-encoding"])

    def _read_final_head(self) -> tuple[str, int, str, list[tuple[str, str]]]:
        while True:
            version, status, reason = self._read_status_line()
            found = read_fields(self.fp)
            if status not in _INFORMATIONAL or status == _SWITCHING:
                return version, status, reason, found

    def _read_status_line(self) -> tuple[str, int, str]:
        try:
            version, status, reason = self._read_status()  # type: ignore[attr-defined]
        except http.client.RemoteDisconnected:
            raise
        except http.client.BadStatusLine as exc:
            line = str(exc.args[0])
            if "HTTP/1.1 ".startswith(line[:9]) and not line.endswith("\n"):
                raise http.client.HTTPException("the response head is truncated") from None
            raise MalformedHead(
                f"the response begins with {line[:80]!r}; expected HTTP/1"
            ) from None
        if not version.startswith("HTTP/1."):
            raise MalformedHead(f"the response has the version {version}; expected HTTP/1")
        return version, status, reason

    def read_with(self, readinto: Callable[[memoryview], int]) -> None:
        """Read from the socket with this function. Call it before `begin`."""
        if isinstance(self.fp, io.BufferedReader):
            self.fp.raw.readinto = readinto  # type: ignore[method-assign]

    def readinto(self, buffer: Any) -> int:
        """Read into the buffer until it is full, or for half a second; return 0 at the end of the body.

        If the connection breaks or is silent for too long, return what arrived before; the next call
        raises the error.
        """
        if self._failure is not None:
            raise self._failure
        view, size, until_s = memoryview(buffer), 0, clock.monotonic_s() + GATHER_S
        try:
            while size < len(view) and self.fp is not None:
                count = self._read_piece(view[size:])
                size += count
                if not count or clock.monotonic_s() >= until_s:
                    break
        except (OSError, http.client.HTTPException) as exc:
            if not size:
                raise
            self._failure = exc
        return size

    def _read_piece(self, view: memoryview) -> int:
        """Read bytes of the body or of one chunk; return 0 at the end of the body."""
        left = self._get_chunk_left() if self.chunked else self.length
        if self.chunked and left is None:
            return 0
        count = self._read_once(view if left is None else view[:left])
        if self.chunked:
            if not count:
                raise http.client.IncompleteRead(b"")
            self.chunk_left = (left or 0) - count
            return count
        if left is not None:
            self.length = left - count
        if not count or self.length == 0:
            self._close_conn()
        return count

    def _read_once(self, view: memoryview) -> int:
        """Return what the buffer holds, else read from the socket once.

        Both in one call of `readinto1` would lose the bytes of the buffer if the socket fails.
        """
        if self._has_read_ahead:
            self._has_read_ahead = False
            found = self.fp.read1(min(len(view), READ_AHEAD_BYTES))
            view[: len(found)] = found
            return len(found)
        return self.fp.readinto1(view)

    def _frame(self, version: str, codings: list[str]) -> None:
        """Determine where the body ends, and whether the connection can be reused."""
        if len(codings) > 1:
            self.fields["transfer-encoding"] = ", ".join(codings)
        self.chunked = [coding.lower() for coding in codings] == ["chunked"]
        self.chunk_left = None
        connection = self.fields.get("connection", "").lower()
        self.will_close = "close" in connection or (
            version == "HTTP/1.0" and "keep-alive" not in connection
        )
        # Two different ends: do not reuse the connection (RFC 9112, 6.3).
        if codings and self.lengths:
            self.will_close = True
        self.length = None
        if self.status in _INFORMATIONAL or self.status in _WITHOUT_BODY:
            self.length = 0
        elif not codings and self.lengths and self.lengths[-1].isdecimal():
            self.length = int(self.lengths[-1][:18])
        if self.length is None and not self.chunked:
            self.will_close = True

    def _get_chunk_left(self) -> int | None:
        if self.chunk_left == 0:
            found = self._safe_read(2)  # type: ignore[attr-defined]
            if found != b"\r\n":
                raise http.client.HTTPException(f"a chunk ends with {found!r}; expected CR LF")
            self.chunk_left = None
        left: int | None = super()._get_chunk_left()  # type: ignore[misc]
        return left

    def _read_next_chunk_size(self) -> int:
        self._has_read_ahead = True
        line = self.fp.readline(_LINE_BYTES)
        if found := _CHUNK_SIZE.fullmatch(line):
            return int(found[1], 16)
        if len(line) < _LINE_BYTES and not line.endswith(b"\n"):
            raise http.client.IncompleteRead(b"")
        raise http.client.HTTPException(f"a chunk's size is {line[:80]!r}; expected hex digits")

    def _read_and_discard_trailer(self) -> None:
        head = _Head(self.fp)
        while (line := head.readline(_LINE_BYTES)) not in {b"\r\n", b"\n"}:
            if not line.endswith(b"\n"):
                raise http.client.IncompleteRead(b"")

    def _close_conn(self) -> None:
        """Release the socket, after recording whether data was read beyond the end of the body."""
        file = self.fp
        # A closed file means that there was no response.
        if isinstance(file, io.BufferedReader) and not file.closed:
            # With an empty buffer, `peek` reads from the socket and would block: give it nothing to
            # read.
            file.raw.readinto = _read_nothing  # type: ignore[method-assign]
            self.has_surplus = bool(file.peek())
        super()._close_conn()  # type: ignore[misc]
