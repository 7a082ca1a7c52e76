"""Objects of the test origin: they change during a download, and support ranges well or badly."""

import dataclasses
import threading
from collections.abc import Mapping
from email.utils import formatdate

from cacheapp import clock


@dataclasses.dataclass
class Version:
    """The content of an object at one time."""

    body: bytes
    etag: str | None = None
    modified_s: float | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def validators(self) -> dict[str, str]:
        found = dict(self.headers)
        if self.etag is not None:
            found["ETag"] = self.etag
        if self.modified_s is not None:
            found["Last-Modified"] = formatdate(self.modified_s, usegmt=True)
        return found


@dataclasses.dataclass
class Thing:
    """An object: each request gets the next of `versions`; later requests get the last one.

    `cuts`: the bytes of the body after which each request's connection breaks; `None`: never.
    """

    versions: list[Version]
    cuts: list[int | None] = dataclasses.field(default_factory=list)
    hang: bool = False
    """Keep the connection open and silent at its cut, instead of breaking it."""
    cut_every: int | None = None
    """Like `cuts`, for all requests without one of their own."""
    reset: bool = False
    """Reset the connection at its cut, when the client has received what was sent."""
    ranges: bool = True
    if_range: bool = True
    """Whether it respects `If-Range`; if not, it sends ranges of the current content."""
    conditions: bool = True
    """Whether it respects `If-None-Match` and `If-Modified-Since`."""
    longest: int | None = None
    """The most bytes of a range that are sent."""
    lies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Headers of a 206 that replace the correct ones."""
    refusals: list[str] = dataclasses.field(default_factory=list)
    """Response heads that the first requests get, one each."""
    busy: str = ""
    """The response head while `limit` bodies are being sent."""
    limit: int = 0
    refused: int = 0
    """Requests that got it."""
    asked: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """The headers of each request."""
    asked_at_s: list[float] = dataclasses.field(default_factory=list)
    """The time of each request."""
    sent: list[int] = dataclasses.field(default_factory=list)
    """The bytes sent of each body."""
    takes_s: float = 0.0
    """The duration of sending the body in pieces; 0 sends it at once."""
    piece_bytes: int = 64 * 1024
    """The size of these pieces."""
    gate: threading.Event | None = None
    """Until it is set, the second half of a slow body is sent at a byte per second."""
    active: int = 0
    """Responses whose bodies are being sent."""
    most_active: int = 0
    hanging: int = 0
    """Responses that fell silent at their cut."""

    def answer(self, fields: Mapping[str, str]) -> tuple[bytes, bytes, bool]:
        """Return head, body, and whether to break the connection afterwards."""
        number = len(self.asked)
        self.asked_at_s.append(clock.monotonic_s())
        self.asked.append(dict(fields))
        if number < len(self.refusals) and self.refusals[number]:
            return (
                f"HTTP/1.1 {self.refusals[number]}\r\nContent-Length: 0\r\n\r\n".encode(),
                b"",
                False,
            )
        if self.busy and self.active >= self.limit:
            self.refused += 1
            return f"HTTP/1.1 {self.busy}\r\nContent-Length: 0\r\n\r\n".encode(), b"", False
        version = self.versions[min(number, len(self.versions) - 1)]
        cut = self.cuts[number] if number < len(self.cuts) else self.cut_every
        status, headers, body = self._respond(version, fields)
        if cut is not None and number >= len(self.cuts) and cut >= len(body):
            cut = None
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        sent = body if cut is None else body[:cut]
        return f"HTTP/1.1 {status}\r\n{head}\r\n".encode(), sent, cut is not None

    def _respond(
        self, version: Version, fields: Mapping[str, str]
    ) -> tuple[str, dict[str, str], bytes]:
        headers = {"Date": formatdate(usegmt=True), **version.validators}
        wanted = fields.get("if-match")
        if wanted is not None and wanted != version.etag:
            return "412 Precondition Failed", {"Content-Length": "0"}, b""
        if self.conditions and self._is_known(version, fields):
            return "304 Not Modified", headers, b""
        span = self._span(version, fields)
        if span is None:
            return "200 OK", {**headers, "Content-Length": str(len(version.body))}, version.body
        total = len(version.body)
        first, last = span
        if first >= total:
            unsatisfied = {"Content-Range": f"bytes */{total}", "Content-Length": "0"}
            return "416 Range Not Satisfiable", unsatisfied, b""
        body = version.body[first : last + 1][: self.longest]
        headers["Content-Range"] = f"bytes {first}-{first + len(body) - 1}/{total}"
        headers["Content-Length"] = str(len(body))
        headers.update(self.lies)
        return "206 Partial Content", {k: v for k, v in headers.items() if v}, body

    def _is_known(self, version: Version, fields: Mapping[str, str]) -> bool:
        if (tag := fields.get("if-none-match")) is not None:
            return tag == version.etag
        since = fields.get("if-modified-since")
        return since is not None and since == version.validators.get("Last-Modified")

    def _span(self, version: Version, fields: Mapping[str, str]) -> tuple[int, int] | None:
        """Return the first and last byte of the range to send; `None` for the whole body."""
        text = fields.get("range")
        if not self.ranges or text is None:
            return None
        known = {version.etag, version.validators.get("Last-Modified")}
        if self.if_range and fields.get("if-range") not in known:
            return None
        first, _, last = text.removeprefix("bytes=").partition("-")
        return int(first), int(last) if last else len(version.body) - 1
