r"""Decides what may be fetched: by origins and network addresses, at every hop of a redirect.

One parser decides and fetches: what is checked here is what `connections` connects to. That is why
only the characters of RFC 3986 are let in: on the others (`\\`, spaces, controls) parsers differ,
and a URL that two parsers read differently passes one check and reaches another host.
"""

import dataclasses
import functools
import re
from urllib.parse import urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from cacheapp.downloads.http.ip_policy import refusal_reason
from cacheapp.downloads.plan import Network
from cacheapp.errors import CacheappError

MAX_URL_CHARACTERS = 4096
PORTS = {"http": 80, "https": 443}
_IPV4 = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_QUERY = re.compile(r"([?#]).*", re.DOTALL)
_CREDENTIALS = re.compile(r"//[^/]*@")
_NOT_IN_A_URL = re.compile(r"[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]")


class UrlRefused(CacheappError):
    """The URL may not be fetched; the message says why. Nothing was sent to it."""


@dataclasses.dataclass(frozen=True)
class ParsedUrl:
    """A URL that was taken apart once: where to connect, and what to ask for."""

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
    """Lets through the URLs of some origins (`scheme://host:port`), at some network addresses."""

    origins: frozenset[str] | None
    """`None`: any, for somebody at a terminal; addresses are checked all the same."""
    networks: tuple[Network, ...] = ()
    """Networks that may be connected to although they are not public."""
    trusted: frozenset[str] = frozenset()
    """Origins that may be at any address: named by whoever runs this, such as a store at home."""

    def check_url(self, url: str) -> ParsedUrl:
        """Return the URL taken apart; raise `UrlRefused` where it may not be fetched."""
        parsed = parse_http_url(url)
        if self.origins is not None and parsed.origin not in self.origins:
            allowed = ", ".join(sorted(self.origins)) or "none (CACHEAPP['DOWNLOAD_ORIGINS'])"
            raise UrlRefused(f"origin {parsed.origin} is not allowed; allowed: {allowed}")
        return parsed

    def check_address(self, host: str, port: int, text: str) -> None:
        """Raise `UrlRefused` where `host` may not be connected to at the address `text`.

        An origin that is allowed by its address, or as localhost, is allowed to be there; a name
        that is allowed may not lead to just any place in our own network.
        """
        if f"{host}:{port}" in self._exempt_hosts:
            return
        if (reason := refusal_reason(text, self.networks)) is not None:
            raise UrlRefused(f"{host}: {reason}; see DOWNLOAD_NETWORKS")

    @functools.cached_property
    def _exempt_hosts(self) -> frozenset[str]:
        named = {origin for origin in self.origins or () if _is_ip_or_localhost(origin)}
        return frozenset(origin.partition("://")[2] for origin in named | self.trusted)

    def check_redirect(self, parsed: ParsedUrl, location: str) -> ParsedUrl:
        """Return where a redirect leads; raise `UrlRefused` where that may not be fetched."""
        try:
            return self.check_url(urljoin(parsed.url, location))
        except UrlRefused as exc:
            raise UrlRefused(f"redirected to {_redacted(location)!r}: {exc}") from exc
        except ValueError as exc:  # urljoin's, on such as an unclosed [
            raise UrlRefused(f"redirected to {_redacted(location)!r}, which is no URL") from exc


def _redacted(location: str) -> str:
    """Return what of a redirect's target everybody may read who may look at the job.

    A signature or a token stands in the query or behind `#`, a password before the host.
    """
    cut = _QUERY.sub(r"\g<1>...", location)
    return _CREDENTIALS.sub("//...@", cut)[:200]


def _is_ip_or_localhost(origin: str) -> bool:
    host = origin.partition("://")[2].rpartition(":")[0]
    return host == "localhost" or host.startswith("[") or bool(_IPV4.fullmatch(host))


@functools.lru_cache(maxsize=4096)  # more than wait in a run: a URL is parsed once, not thrice
def parse_http_url(url: str) -> ParsedUrl:
    """Return the parts of an absolute http(s) URL; raise `UrlRefused` naming what is wrong."""
    if len(url) > MAX_URL_CHARACTERS:
        raise UrlRefused(f"{len(url)} characters; expected at most {MAX_URL_CHARACTERS}")
    if found := _NOT_IN_A_URL.search(url):
        where = f"{found[0]!r} at character {found.start() + 1}"
        raise UrlRefused(f"{where} cannot stand in a URL; percent-encode it")
    try:
        parts = parse_url(url)
    except LocationParseError as exc:
        raise UrlRefused("not a URL; expected http:// or https:// with a host") from exc
    return _checked(url, parts)


def _checked(url: str, parts: Url) -> ParsedUrl:
    if parts.scheme not in PORTS:
        raise UrlRefused(f"scheme is {parts.scheme!r}; expected http or https")
    if not parts.host:
        raise UrlRefused("no host")
    if parts.auth is not None:
        raise UrlRefused("has a user name or password before the host; credentials are not sent")
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    if not port:
        raise UrlRefused("port is 0; expected 1 to 65535")
    return ParsedUrl(url, parts.scheme, parts.host, port, parts.request_uri)
