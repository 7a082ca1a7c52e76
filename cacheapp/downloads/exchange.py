"""Asks for one URL and follows where that leads; every hop is checked before anything is sent to it."""

import dataclasses
import datetime as dt
import http
import http.client
from collections.abc import Callable, Mapping

import urllib3
from urllib3.exceptions import ProtocolError

from cacheapp import clock
from cacheapp.downloads import connections
from cacheapp.downloads.explanations import TransferFailed
from cacheapp.downloads.guards import Address, Guard
from cacheapp.downloads.retrying import TOO_MUCH, WORTH_RETRYING, read_retry_after

_REDIRECTS = frozenset([301, 302, 303, 307, 308])

Sign = Callable[[str], Mapping[str, str]]
"""Takes a URL; returns the headers that prove who asks for it."""


@dataclasses.dataclass(frozen=True)
class Asker:
    """What all requests of one transfer have in common."""

    client: urllib3.PoolManager
    guard: Guard
    line: connections.Line
    check: Callable[[], None]
    """Raises once the transfer is to stop: called before each request."""
    connect_s: float
    read_s: float
    max_redirects: int
    sign: Sign | None = None

    def ask(self, url: str, headers: Mapping[str, str]) -> "Answer":
        """Return the answer at the end of the redirects, whatever its status.

        Credentials go to the origin of `url` alone: another one may belong to anybody.
        """
        address = self.guard.admit(url)
        home = address.origin
        for _ in range(self.max_redirects + 1):
            self.check()
            signed = self.sign(address.url) if self.sign and address.origin == home else {}
            answer = self._ask(address, {**headers, **signed})
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            answer.close()  # its body, of any length, is not worth reading
            address = self.guard.follow(address, location)
        raise TransferFailed(f"redirected more than {self.max_redirects} times")

    def _ask(self, address: Address, headers: Mapping[str, str]) -> "Answer":
        try:
            return self._ask_once(address, headers)
        except ProtocolError as exc:
            # The server may have closed a kept connection just as it was used: nothing was
            # answered, and GET may be repeated. Once: the next may be an old one as well.
            broken = isinstance(exc.args[-1], ConnectionError)
            if not (broken and connections.was_reused()):
                raise
            self.check()
            self.client.clear()
            return self._ask_once(address, headers)

    def _ask_once(self, address: Address, headers: Mapping[str, str]) -> "Answer":
        pool = self.client.connection_from_host(address.host, address.port, address.scheme)
        response = pool.urlopen(
            "GET",
            address.target,
            headers={**self.client.headers, **headers},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=self.connect_s, read=self.read_s),
        )
        return Answer(response, connections.raw_answer(), self.line)


class Answer:
    """What came back: its head, and `readinto` for its body. To be closed, or left when read."""

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        raw: http.client.HTTPResponse,
        line: connections.Line,
    ) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in raw.headers.items()}
        """By their names in lower case; of one that comes more than once, the last."""
        self.lengths: list[str] = raw.headers.get_all("Content-Length", [])
        self.chunked = raw.chunked
        self.readinto = raw.readinto
        self._raw = raw
        self._response = response
        self._line = line

    def failure(self) -> TransferFailed:
        """Return what its status means where it brings no file."""
        now = dt.datetime.fromtimestamp(clock.wall_s(), dt.UTC)
        return TransferFailed(
            f"answered {self.status} {self._response.reason or ''}".rstrip(),
            again=self.status in WORTH_RETRYING,
            slow_down=self.status in TOO_MUCH,
            retry_after_s=read_retry_after(self.headers.get("retry-after"), now),
        )

    def leave(self) -> None:
        """Give the connection back: the body was read until nothing came any more."""
        if self._raw.length:  # not to its end, though
            self.close()
            return
        self._line.release()
        self._response.release_conn()

    def close(self) -> None:
        """Close the connection: the rest of the body would be taken for the next answer."""
        self._line.release()
        self._response.close()
        self._response.release_conn()
