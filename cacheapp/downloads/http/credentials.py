"""Authenticates requests to origins, by the headers of `DOWNLOAD_HEADERS` and by a netrc file.

A signer is called for requests to the origin of a file's own URL only (`HTTPClient`): a redirect to
another origin takes no credentials with it, and receives none of that origin's.
"""

import base64
import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cacheapp.access_settings import OriginHeaders
from cacheapp.downloads.http.client import Signer
from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.http.url_policy import parse_http_url

logger = logging.getLogger(__name__)


def origin_signer(
    origins: Sequence[OriginHeaders], logins: Mapping[str, str] | None = None
) -> Signer | None:
    """Return a signer; `None` if there is nothing to send.

    `logins`: values of `Authorization` by host (`read_netrc`), for origins without such a header.
    """
    logins = logins or {}
    if not origins and not logins:
        return None
    by_origin = {it.origin: it.headers for it in origins}

    def sign(url: str) -> Mapping[str, str]:
        parsed = parse_http_url(url)
        found = {}
        for name, value in by_origin.get(parsed.origin, ()):
            try:
                found[name] = value.read()
            except ValueError as exc:
                # The log alone has the reason: it names paths and variables of this server.
                logger.warning("DOWNLOAD_HEADERS of %s: %s: %s", parsed.origin, name, exc)
                message = f"the header {name} for {parsed.origin} cannot be read"
                raise TransferFailed(message) from None
        if parsed.host in logins and "authorization" not in {name.lower() for name in found}:
            found["Authorization"] = logins[parsed.host]
        return found

    return sign


def read_netrc() -> dict[str, str]:
    """Return the values of `Authorization` by host, from the file `$NETRC` or `~/.netrc`.

    The entry `default` is not used: it would send a password to any host. Raise `ValueError` for an
    invalid file, and for a missing one that `$NETRC` names.
    """
    named = os.environ.get("NETRC")
    path = Path(named) if named else Path("~/.netrc").expanduser()
    try:
        hosts = netrc.netrc(str(path)).hosts
    except FileNotFoundError:
        if not named:
            return {}
        raise ValueError(f"NETRC is {path}: No such file or directory") from None
    except OSError as exc:
        raise ValueError(f"{path}: {exc.strerror}") from None
    except (netrc.NetrcParseError, UnicodeDecodeError) as exc:
        line = exc.lineno if isinstance(exc, netrc.NetrcParseError) else None
        where = f", line {line}" if line else ""
        raise ValueError(f"{path}{where}: is not a valid netrc file") from None
    return {
        host.lower(): "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()
        for host, (login, _, password) in hosts.items()
        if host != "default" and password is not None
    }
