"""Finds the proxy for a URL in the environment: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.

Through a proxy, the address of a host cannot be checked: the proxy resolves the name. Only the origins
of a job, and hosts that are written as addresses, are checked then.
"""

import base64
import dataclasses
import functools
import urllib.request
from collections.abc import Mapping
from typing import Self
from urllib.parse import unquote, urlsplit

from cacheapp.downloads.http.errors import TransferFailed

_SCHEMES = ("http", "https")


@dataclasses.dataclass(frozen=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False, hash=False)
    """What authenticates requests to the proxy."""

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"


class Proxies:
    """The proxies of one job. Frozen after its creation."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take a dict in the form of `urllib.request.getproxies_environment`."""
        self._environment = environment
        self._by_host = functools.lru_cache(maxsize=1000)(self._find)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the variables, in lower case first, as the other tools of the system do."""
        return cls(urllib.request.getproxies_environment())

    def find(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy of a URL; `None` if it is requested directly.

        Raise `TransferFailed` if the variable is not the URL of an HTTP proxy.
        """
        return self._by_host(scheme, host, port)

    def shown(self) -> str:
        """Return the proxies without credentials, for people; raise `TransferFailed` likewise."""
        found = {str(_parse(scheme, self._environment.get(scheme, ""))) for scheme in _SCHEMES}
        return ", ".join(sorted(found - {"None"}))

    def _find(self, scheme: str, host: str, port: int) -> Proxy | None:
        proxy = _parse(scheme, self._environment.get(scheme, ""))
        if proxy is None or urllib.request.proxy_bypass_environment(  # type: ignore[attr-defined]
            f"{host}:{port}", self._environment
        ):
            return None
        return proxy


def _parse(scheme: str, text: str) -> Proxy | None:
    if not text:
        return None
    variable = f"{scheme.upper()}_PROXY"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if not host or parts.scheme != "http":  # no value in the message: it may have a password
        raise TransferFailed(
            f"{variable} is not the URL of an HTTP proxy; expected http://host:port"
        )
    headers = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(pair.encode()).decode()
        headers["Proxy-Authorization"] = f"Basic {token}"
    return Proxy(host, port, headers)
