"""What an answer says before its body, read strictly and within a bound; the body is the standard library's.

`http.client` bounds a line and the number of lines, but not what goes before (a server may send
`100 Continue` for ever) nor what comes after the last chunk; and it reads fields with the parser for
e-mails, which took a tenth of the CPU of a small file.
"""

import http.client
from typing import Any

HEAD_BYTES = 64 * 1024
_LINE_BYTES = 64 * 1024
_INFORMATIONAL = range(100, 200)
_SWITCHING = 101
_WITHOUT_BODY = frozenset([204, 304])


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
        text = line.decode("latin-1")
        if text[0] in " \t" and found:
            name, value = found.pop()
            found.append((name, f"{value} {text.strip()}"))
            continue
        name, colon, value = text.partition(":")
        if not colon or not name or name != name.strip():
            raise http.client.HTTPException(f"the answer's head has the line {text.strip()[:80]!r}")
        found.append((name.lower(), value.strip()))
    return found


class HTTPAnswer(http.client.HTTPResponse):
    """An answer whose head and trailer are bounded, with its fields in a plain dict."""

    fields: dict[str, str]
    """By their names in lower case; of one that comes more than once, the last."""
    lengths: list[str]
    """All that is said about the length."""

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

    def _read_and_discard_trailer(self) -> None:
        file = self.fp
        self.fp = _Head(file)  # type: ignore[assignment]
        try:
            super()._read_and_discard_trailer()  # type: ignore[misc]
        finally:
            if isinstance(self.fp, _Head):
                self.fp = file
