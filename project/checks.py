"""System checks of this deployment."""

import ipaddress
import re
from typing import Any

from django.conf import settings
from django.core import checks

_PORT = re.compile(r":[0-9]+$")


@checks.register(checks.Tags.security)
def check_front(**_: Any) -> list[checks.CheckMessage]:
    """W001: report that other machines reach Gunicorn without a proxy in front."""
    if settings.BEHIND_TLS_PROXY or is_loopback(settings.BIND):
        return []
    return [
        checks.Warning(
            f"BIND is {settings.BIND!r}, which other machines can reach, and BEHIND_TLS_PROXY is not "
            "set: a few clients that send unfinished bodies occupy all threads of Gunicorn.",
            hint="Put nginx or Caddy in front, as docs/howto/deploy.md shows, and set "
            "BEHIND_TLS_PROXY=1; or bind 127.0.0.1.",
            id="project.W001",
        )
    ]


def is_loopback(bind: str) -> bool:
    """Return True if no other machine can connect to the address; also for a socket that is a file."""
    if bind.startswith(("unix:", "fd://")):
        return True
    host = _PORT.sub("", bind).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
