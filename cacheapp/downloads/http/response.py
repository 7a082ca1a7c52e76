"""What an answer says around its body, read strictly and within a bound; the body is the standard library's.

`http.client` bounds a line and the number of lines, but not what goes before (a server may send
`100 Continue` for ever) nor what comes after the last chunk; and it reads fields with the parser for
e-mails, which took a tenth of the CPU of a small file.

It also forgives what only a cut explains: a chunk's size without the end of its line (`0` may be the
beginning of `0005`), and a last chunk without the empty line behind it. Nobody announces how long a
chunked body is, so here a body has ended only where every byte of its end has come.
"""

import http.client
import io
import re
from collections.abc import Callable
from typing import Any

HEAD_BYTES = 64 * 1024
_LINE_BYTES = 64 * 1024
_INFORMATIONAL = range(100, 200)
_SWITCHING = 101
_WITHOUT_BODY = frozenset([204, 304])
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What no value of a field may hold: it might end the line, here or where the value is sent back."""


class _Head:
    """Gives lines, up to a limit for all of them together."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = HEAD_BYTES
        self.close = file.close
        self.flush = file.flush

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.HTTPException(f"the answer's head has more than {HEAD_BYTES} bytes")
        return line


def read_fields(head: Any) -> list[tuple[str, str]]:
    """Return names in lower case and values, in their order, up to the empty line.

    Raise `HTTPException` on what is no field: whoever guesses there reads another answer than the
    server has sent. A folded line goes on with the one before, as RFC 9112, 5.2 has it.
    """
    found: list[tuple[str, str]] = []
    while (line := head.readline(_LINE_BYTES)) not in {b"\r\n", b"\n"}:
        if not line.endswith(b"\n"):
            raise http.client.HTTPException("the answer's head breaks off")
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode("latin-1")
        if CONTROLS.search(text):
            raise http.client.HTTPException(f"the answer's head has the line {text[:80]!r}")
        if text[0] in " \t" and found:
            name, value = found.pop()
            found.append((name, f"{value} {text.strip()}"))
            continue
        name, colon, value = text.partition(":")
        if not colon or not name or name != name.strip():
            raise http.client.HTTPException(f"the answer's head has the line {text.strip()[:80]!r}")
        found.append((name.lower(), value.strip()))
    return found


def _read_nothing(_buffer: object) -> None:
    """Read as a socket does on which nothing has come."""


class StrictHTTPResponse(http.client.HTTPResponse):
    """An answer whose head and trailer are bounded, with its fields in a plain dict."""

    fields: dict[str, str]
    """By their names in lower case; of one that comes more than once, the last."""
    lengths: list[str]
    """All that is said about the length."""
    has_surplus = False
    """Whether more than the body had been taken from the socket when the body ended."""

    def begin(self) -> None:
        """Read the head; informational answers that go before are skipped."""
        file = self.fp
        self.fp = _Head(file)  # type: ignore[assignment]
        try:
            while True:
                version, status, reason = self._read_status()  # type: ignore[attr-defined]
                found = read_fields(self.fp)
                if status not in _INFORMATIONAL or status == _SWITCHING:
                    break
        finally:
            if isinstance(self.fp, _Head):  # it may have been closed meanwhile
                self.fp = file
        self.status, self.reason = status, reason.strip()
        self.fields = dict(found)
        self.lengths = [value for name, value in found if name == "content-length"]
        self._frame(version, [value for name, value in found if name == "transfer-encoding"])

    def read_by(self, readinto: Callable[[memoryview], int]) -> None:
        """Read from the socket by this function; before `begin`."""
        if isinstance(self.fp, io.BufferedReader):
            self.fp.raw.readinto = readinto  # type: ignore[method-assign]

    def _frame(self, version: str, codings: list[str]) -> None:
        """Find out where the body ends, and whether anything may come after it."""
        if not version.startswith("HTTP/1."):
            raise http.client.UnknownProtocol(version)
        if len(codings) > 1:
            self.fields["transfer-encoding"] = ", ".join(codings)
        self.chunked = [coding.lower() for coding in codings] == ["chunked"]
        self.chunk_left = None
        said = self.fields.get("connection", "").lower()
        self.will_close = "close" in said or (version == "HTTP/1.0" and "keep-alive" not in said)
        if codings and self.lengths:  # two ends: what follows is nobody's (RFC 9112, 6.3)
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
        """Let go of the socket; what was read ahead of the body's end would be lost unseen."""
        file = self.fp
        if isinstance(file, io.BufferedReader) and not file.closed:  # else it was no answer
            # `peek` reads where it has nothing, and would wait: let it find nothing to read.
            file.raw.readinto = _read_nothing  # type: ignore[method-assign]
            self.has_surplus = bool(file.peek())
        super()._close_conn()  # type: ignore[misc]
