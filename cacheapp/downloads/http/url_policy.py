r"""Decides which URLs may be fetched, by origin and network address, at every hop of a redirect.

The URL is parsed once, and `connections` connects to exactly what was checked. Only the characters
of RFC 3986 are allowed: parsers differ on the others (`\\`, spaces, controls), and a URL that two
parsers read differently passes a check for one host and reaches another.
"""

import dataclasses
import functools
import re
import socket
from urllib.parse import urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from cacheapp.downloads.http.ip_policy import refusal_reason
from cacheapp.downloads.http.redaction import redacted
from cacheapp.downloads.plan import Network
from cacheapp.errors import CacheappError

MAX_URL_CHARACTERS = 4096
PORTS = {"http": 80, "https": 443}
_IPV4 = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_BEFORE_PATH = re.compile(r"\A((?:[A-Za-z][A-Za-z0-9+.\-]*:)?(?://[^/?#]*)?)")
_ENCODED_IN_REDIRECTS = re.compile(r"[ |\x80-\xff]")
_NOT_IN_A_URL = re.compile(r"[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]")


class UrlRefused(CacheappError):
    """The URL must not be fetched; the message says why. Nothing was sent to it."""


@dataclasses.dataclass(frozen=True)
class ParsedUrl:
    """A parsed URL: where to connect, and what to request."""

    url: str
    scheme: str
    host: str
    port: int
    target: str
    """Path and query."""

    @property
    def origin(self) -> str:
        """The origin in the form of `Conf.download_origins`."""
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class UrlPolicy:
    """Allows the URLs of some origins (`scheme://host:port`), at some network addresses."""

    origins: frozenset[str] | None
    """`None`: any origin, for the command line. Addresses are checked all the same."""
    networks: tuple[Network, ...] = ()
    """Networks that are allowed although they are not public."""
    trusted: frozenset[str] = frozenset()
    """Origins that may have any address: named by the operator, such as a local object store."""

    def check_url(self, url: str) -> ParsedUrl:
        """Return the parsed URL; raise `UrlRefused` if it must not be fetched."""
        parsed = parse_http_url(url)
        if self.origins is not None and parsed.origin not in self.origins:
            allowed = ", ".join(sorted(self.origins)) or "none (CACHEAPP['DOWNLOAD_ORIGINS'])"
            raise UrlRefused(f"origin {parsed.origin} is not allowed; allowed: {allowed}")
        return parsed

    def check_address(self, host: str, port: int, text: str) -> None:
        """Raise `UrlRefused` if `host` must not be connected to at the address `text`.

        An origin that is allowed as localhost or by its IP address may have that address. An
        allowed host name may not resolve to any address of the internal network.
        """
        if f"{host}:{port}" in self._exempt_hosts:
            return
        if (reason := refusal_reason(text, self.networks)) is not None:
            raise UrlRefused(f"{host}: {reason}; see DOWNLOAD_NETWORKS")

    def check_literal(self, parsed: ParsedUrl) -> None:
        """Raise `UrlRefused` if the host is written as an address that must not be connected to.

        For requests through a proxy, which resolves all other names itself.
        """
        host = parsed.host.strip("[]")
        if host == "localhost" or host.endswith(".localhost"):
            host = "127.0.0.1"
        try:
            # inet_aton reads what resolvers read as IPv4: 127.1, 0x7f000001, 2130706433.
            text = host if ":" in host else socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            return
        self.check_address(parsed.host, parsed.port, text)

    @functools.cached_property
    def _exempt_hosts(self) -> frozenset[str]:
        named = {origin for origin in self.origins or () if _is_ip_or_localhost(origin)}
        return frozenset(origin.partition("://")[2] for origin in named | self.trusted)

    def check_redirect(self, parsed: ParsedUrl, location: str) -> ParsedUrl:
        """Return the target of a redirect; raise `UrlRefused` if it must not be fetched."""
        try:
            return self.check_url(urljoin(parsed.url, _encode_path(location)))
        except UrlRefused as exc:
            raise UrlRefused(f"redirected to {redacted(location)[:200]!r}: {exc}") from exc
        except ValueError as exc:  # raised by urljoin, for example for an unclosed [
            shown = redacted(location)[:200]
            raise UrlRefused(f"redirected to {shown!r}, which is not a URL") from exc


def _encode_path(location: str) -> str:
    """Percent-encode non-ASCII bytes, spaces and `|` behind the authority of a redirect target.

    Servers send these characters and browsers encode them. In the authority they stay, and the URL is
    refused: they might change the host. `location` was decoded as Latin-1, one character per byte.
    """
    _, before, path = _BEFORE_PATH.split(location, maxsplit=1)
    return before + _ENCODED_IN_REDIRECTS.sub(lambda found: f"%{ord(found[0]):02X}", path)


def _is_ip_or_localhost(origin: str) -> bool:
    host = origin.partition("://")[2].rpartition(":")[0]
    return host == "localhost" or host.startswith("[") or bool(_IPV4.fullmatch(host))


# More than are queued in a run: each URL is parsed once, not three times.
@functools.lru_cache(maxsize=4096)
def parse_http_url(url: str) -> ParsedUrl:
    """Return the parts of an absolute http(s) URL; raise `UrlRefused` with what is wrong."""
    if len(url) > MAX_URL_CHARACTERS:
        raise UrlRefused(f"{len(url)} characters; expected at most {MAX_URL_CHARACTERS}")
    if found := _NOT_IN_A_URL.search(url):
        where = f"{found[0]!r} at character {found.start() + 1}"
        raise UrlRefused(f"{where} is not allowed in a URL; percent-encode it")
    try:
        parts = parse_url(url)
    except LocationParseError as exc:
        raise UrlRefused("not a URL; expected http:// or https:// with a host") from exc
    return _checked(url, parts)


def _checked(url: str, parts: Url) -> ParsedUrl:
    if parts.scheme not in PORTS:
        raise UrlRefused(f"scheme is {parts.scheme!r}; expected http or https")
    if not parts.host:
        raise UrlRefused("the URL has no host")
    if parts.auth is not None:
        raise UrlRefused("has a user name or password before the host; credentials are not sent")
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    if not port:
        raise UrlRefused("port is 0; expected 1 to 65535")
    return ParsedUrl(url, parts.scheme, parts.host, port, parts.request_uri)
