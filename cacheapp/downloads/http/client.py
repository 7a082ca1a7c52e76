"""Requests one URL and follows redirects; each hop is checked before anything is sent to it."""

import contextlib
import dataclasses
import datetime as dt
import html
import http.client
import re
import ssl
from collections.abc import Callable, Iterator, Mapping

import urllib3

from cacheapp import clock
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.http.proxies import Proxy
from cacheapp.downloads.http.response import CONTROLS, StrictHTTPResponse
from cacheapp.downloads.http.retry import OVERLOAD_STATUSES, RETRYABLE_STATUSES, read_retry_after
from cacheapp.downloads.http.url_policy import PORTS, ParsedUrl, UrlPolicy

# Identity: the stored bytes are those of the response, and its length is the announced one.
_ALWAYS = "Accept-Encoding: identity\r\nUser-Agent: cacheapp/0.1\r\n"
_LENGTH = re.compile("[0-9]{1,18}")
_XML = ("application/xml", "text/xml")
_ERROR_BYTES = 4096
_S3_ERROR = (
    re.compile(r"<Error>.*?<Code>([^<]{1,100})</Code>", re.DOTALL),
    re.compile(r"<Error>.*?<Message>([^<]{1,300})</Message>", re.DOTALL),
)
_REDIRECTS = frozenset([301, 302, 303, 307, 308])

Signer = Callable[[str], Mapping[str, str]]
"""Takes a URL; returns the headers that authenticate the request."""


@dataclasses.dataclass(frozen=True)
class HTTPClient:
    """The connections, limits and policy shared by all requests of one transfer."""

    pools: urllib3.PoolManager
    policy: UrlPolicy
    handle: connections.SocketHandle
    check: Callable[[], None]
    """Called before each request; raises if the transfer is being stopped."""
    connect_s: float
    read_s: float
    max_redirects: int
    sign: Signer | None = None

    def get(self, url: str, headers: Mapping[str, str]) -> "Response":
        """Return the response at the end of the redirects, whatever its status.

        Credentials are sent only to the origin of `url`.
        """
        parsed = self.policy.check_url(url)
        home = parsed.origin
        for _ in range(self.max_redirects + 1):
            self.check()
            signed = self.sign(parsed.url) if self.sign and parsed.origin == home else {}
            response = self._send(parsed, {**headers, **signed})
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()  # its body may have any length and is not needed
            parsed = self.policy.check_redirect(parsed, location)
        raise TransferFailed(f"redirected more than {self.max_redirects} times")

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> "Response":
        """Send a body and return the response, whatever its status; no redirect is followed."""
        return self._send(self.policy.check_url(url), headers, body)

    def _send(
        self, parsed: ParsedUrl, headers: Mapping[str, str], body: bytes | None = None
    ) -> "Response":
        place = (parsed.host, parsed.port, parsed.scheme)
        proxy = connections.proxy_for(self.pools, parsed.scheme, parsed.host, parsed.port)
        if proxy is not None:
            self.policy.check_literal(parsed)
        head = _head(parsed, headers, None if parsed.scheme == "https" else proxy)
        if body is not None:
            head = b"POST" + head.removeprefix(b"GET") + body
        borrowed = connections.borrow(self.pools, *place, proxy)
        try:
            return self._exchange(borrowed, head)
        except (ConnectionError, ssl.SSLEOFError):
            # The server may have closed a kept connection just as it was reused. It sent no
            # response, and GET is idempotent, so retry. Once only: the next connection may be an
            # old one too.
            if not borrowed.connection.was_open:
                raise
            self.check()
            self.pools.clear()
        return self._exchange(connections.borrow(self.pools, *place, proxy), head)

    def _exchange(self, borrowed: connections.BorrowedConnection, head: bytes) -> "Response":
        borrowed.connection.timeout = self.connect_s
        try:
            return Response(
                borrowed.connection.send_request(head, self.read_s), borrowed, self.handle
            )
        except BaseException:
            borrowed.close()
            raise


def _head(parsed: ParsedUrl, headers: Mapping[str, str], proxy: Proxy | None) -> bytes:
    """Return the head of a request, in the form for a proxy if there is one.

    Raise `TransferFailed` if a value has control characters.
    """
    default = parsed.port == PORTS[parsed.scheme]
    host = parsed.host if default else f"{parsed.host}:{parsed.port}"
    target = parsed.target
    if proxy is not None:
        target, headers = f"{parsed.scheme}://{host}{target}", {**headers, **proxy.headers}
    lines = [f"GET {target} HTTP/1.1\r\nHost: {host}\r\n", _ALWAYS]
    for name, value in headers.items():
        if CONTROLS.search(value):
            raise TransferFailed(f"{name} would have control characters")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1", errors="replace")


class Response:
    """A response: its head, and `readinto` for its body. Ends with `release` or `close`."""

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
        self._borrowed = borrowed
        self._handle = handle

    def content_length(self, *, verified: bool = False) -> int | None:
        """Return the announced length; `None` for a chunked body, which marks its own end.

        Also `None` for a body that ends with its connection, if its content is `verified`.
        """
        if self.chunked:
            return None
        if coding := self.headers.get("transfer-encoding"):
            raise TransferFailed(f"has Transfer-Encoding {coding[:40]!r}; expected none or chunked")
        lengths = self.lengths
        if not lengths:
            if verified:
                return None
            raise TransferFailed(
                "has neither Content-Length nor chunks: a truncated body would go unnoticed"
            )
        if len(set(lengths)) > 1 or not _LENGTH.fullmatch(lengths[0]):
            raise TransferFailed(f"has Content-Length {lengths!r:.60}; expected one number")
        return int(lengths[0])

    def to_error(self) -> TransferFailed:
        """Return the error for a status that brings no file."""
        now = dt.datetime.fromtimestamp(clock.wall_s(), dt.UTC)
        return TransferFailed(
            f"responded with {self.status} {self._raw.reason or ''}".rstrip() + self._s3_error(),
            retryable=self.status in RETRYABLE_STATUSES,
            slow_down=self.status in OVERLOAD_STATUSES,
            retry_after_s=read_retry_after(self.headers.get("retry-after"), now),
            keeps_bytes=True,
        )

    def _s3_error(self) -> str:
        """Return code and message in the body of an S3 error, such as `InvalidObjectState`."""
        if not self.headers.get("content-type", "").lower().startswith(_XML):
            return ""
        body = bytearray()
        with contextlib.suppress(OSError, http.client.HTTPException):
            for piece in self._pieces(_ERROR_BYTES):
                body += piece
        text = body.decode(errors="replace")
        found = (pattern.search(text) for pattern in _S3_ERROR)
        return "".join(f": {html.unescape(it[1])}" for it in found if it)

    def _pieces(self, most: int) -> Iterator[bytes]:
        rest = memoryview(bytearray(most))
        while rest and (count := self.readinto(rest)):
            yield bytes(rest[:count])
            rest = rest[count:]

    def release(self) -> None:
        """Return the connection to its pool. Call it after the body was read to its end."""
        raw = self._raw
        if raw.length or raw.will_close:  # not read to its end, or the connection is not reusable
            self.close()
            return
        # The server sent more than the response.
        if raw.has_surplus or self._borrowed.connection.has_unread_bytes():
            self.close()
            return
        self._handle.detach()
        self._raw.close()
        self._borrowed.return_to_pool()

    def close(self) -> None:
        """Close the connection: the rest of the body would be read as the next response."""
        self._handle.detach()
        self._raw.close()
        self._borrowed.close()
