"""Asks for one URL and follows where that leads; every hop is checked before anything is sent to it."""

import dataclasses
import datetime as dt
import re
import ssl
from collections.abc import Callable, Mapping

import urllib3

from cacheapp import clock
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.http.response import CONTROLS, StrictHTTPResponse
from cacheapp.downloads.http.retry import OVERLOAD_STATUSES, RETRYABLE_STATUSES, read_retry_after
from cacheapp.downloads.http.url_policy import PORTS, ParsedUrl, UrlPolicy

# Identity: what arrives is what is stored, and its length is the one announced.
_ALWAYS = "Accept-Encoding: identity\r\nUser-Agent: cacheapp/0.1\r\n"
_LENGTH = re.compile("[0-9]{1,18}")
_REDIRECTS = frozenset([301, 302, 303, 307, 308])

Signer = Callable[[str], Mapping[str, str]]
"""Takes a URL; returns the headers that prove who asks for it."""


@dataclasses.dataclass(frozen=True)
class HTTPClient:
    """What all requests of one transfer have in common."""

    client: urllib3.PoolManager
    policy: UrlPolicy
    handle: connections.SocketHandle
    check: Callable[[], None]
    """Raises once the transfer is to stop: called before each request."""
    connect_s: float
    read_s: float
    max_redirects: int
    sign: Signer | None = None

    def ask(self, url: str, headers: Mapping[str, str]) -> "Response":
        """Return the answer at the end of the redirects, whatever its status.

        Credentials go to the origin of `url` alone: another one may belong to anybody.
        """
        parsed = self.policy.check_url(url)
        home = parsed.origin
        for _ in range(self.max_redirects + 1):
            self.check()
            signed = self.sign(parsed.url) if self.sign and parsed.origin == home else {}
            response = self._ask(parsed, {**headers, **signed})
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()  # its body, of any length, is not worth reading
            parsed = self.policy.check_redirect(parsed, location)
        raise TransferFailed(f"redirected more than {self.max_redirects} times")

    def _ask(self, parsed: ParsedUrl, headers: Mapping[str, str]) -> "Response":
        head = _head(parsed, headers)
        borrowed = connections.borrow(self.client, parsed.host, parsed.port, parsed.scheme)
        try:
            return self._sent(borrowed, head)
        except (ConnectionError, ssl.SSLEOFError):
            # The server may have closed a kept connection just as it was used: nothing was
            # answered, and GET may be repeated. Once: the next may be an old one as well.
            if not borrowed.connection.was_open:
                raise
            self.check()
            self.client.clear()
        return self._sent(
            connections.borrow(self.client, parsed.host, parsed.port, parsed.scheme), head
        )

    def _sent(self, borrowed: connections.BorrowedConnection, head: bytes) -> "Response":
        borrowed.connection.timeout = self.connect_s
        try:
            return Response(borrowed.connection.ask(head, self.read_s), borrowed, self.handle)
        except BaseException:
            borrowed.close()
            raise


def _head(parsed: ParsedUrl, headers: Mapping[str, str]) -> bytes:
    """Return a request's head; raise `TransferFailed` where a value would not stay in its line."""
    default = parsed.port == PORTS[parsed.scheme]
    lines = [
        f"GET {parsed.target} HTTP/1.1\r\nHost: {parsed.host}",
        "\r\n" if default else f":{parsed.port}\r\n",
        _ALWAYS,
    ]
    for name, value in headers.items():
        if CONTROLS.search(value):
            raise TransferFailed(f"{name} would be {value[:80]!r}: it holds control characters")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1", errors="replace")


class Response:
    """What came back: its head, and `readinto` for its body. To be closed, or left when read."""

    def __init__(
        self,
        raw: StrictHTTPResponse,
        borrowed: connections.BorrowedConnection,
        handle: connections.SocketHandle,
    ) -> None:
        self.status = raw.status
        self.headers = raw.fields
        self.lengths = raw.lengths
        self.chunked = raw.chunked
        self.readinto = raw.readinto
        self._raw = raw
        self._lent = borrowed
        self._handle = handle

    def content_length(self) -> int | None:
        """Return the length that it announces; `None` where its chunks mark its end."""
        if self.chunked:
            return None
        if coding := self.headers.get("transfer-encoding"):
            raise TransferFailed(
                f"sends Transfer-Encoding {coding[:40]!r}; expected none or chunked"
            )
        lengths = self.lengths
        if not lengths:
            raise TransferFailed(
                "announces neither Content-Length nor chunks: a cut would go unseen"
            )
        if len(set(lengths)) > 1 or not _LENGTH.fullmatch(lengths[0]):
            raise TransferFailed(f"announces Content-Length {lengths!r:.60}; expected one number")
        return int(lengths[0])

    def failure(self) -> TransferFailed:
        """Return what its status means where it brings no file."""
        now = dt.datetime.fromtimestamp(clock.wall_s(), dt.UTC)
        return TransferFailed(
            f"answered {self.status} {self._raw.reason or ''}".rstrip(),
            retryable=self.status in RETRYABLE_STATUSES,
            slow_down=self.status in OVERLOAD_STATUSES,
            retry_after_s=read_retry_after(self.headers.get("retry-after"), now),
        )

    def leave(self) -> None:
        """Give the connection back: the body was read until nothing came any more."""
        raw = self._raw
        if raw.length or raw.will_close:  # not to its end, or nothing may follow
            self.close()
            return
        if raw.has_surplus or self._lent.connection.has_pending():  # nobody has asked for that
            self.close()
            return
        self._handle.release()
        self._raw.close()
        self._lent.give_back()

    def close(self) -> None:
        """Close the connection: the rest of the body would be taken for the next answer."""
        self._handle.release()
        self._raw.close()
        self._lent.close()
