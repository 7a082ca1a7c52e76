"""Sends signed notifications to the receivers that `DOWNLOAD_WEBHOOKS` allows.

Headers and signature are those of Standard Webhooks (standardwebhooks.com), so its libraries verify
them: `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256 of id, timestamp and body,
joined by dots. A key that begins with `whsec_` is base64 after that; any other key is used as it
is.

The address of a receiver is checked as that of a download. Redirects are not followed.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import threading
from collections.abc import Iterable
from urllib.parse import unquote

from cacheapp.access_settings import AllowedWebhook
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.client import HTTPClient
from cacheapp.downloads.http.connections import SocketHandle
from cacheapp.downloads.http.errors import TransferFailed, translate_error
from cacheapp.downloads.http.proxies import Proxies
from cacheapp.downloads.http.url_policy import UrlPolicy, UrlRefused, parse_http_url
from cacheapp.downloads.plan import Network

logger = logging.getLogger(__name__)

_KEY_PREFIX = "whsec_"
_SUCCESS = range(200, 300)
_REDIRECT = range(300, 400)
_GONE = 410


def find_webhook(url: str, allowed: Iterable[AllowedWebhook]) -> AllowedWebhook:
    """Return the setting that allows a receiver; raise `UrlRefused`."""
    allowed = tuple(allowed)
    parsed = parse_http_url(url)
    path = parsed.target.partition("?")[0]
    if not {".", ".."} & set(unquote(path).replace("\\", "/").split("/")):
        for it in allowed:
            is_below = path.startswith(it.path) if it.path.endswith("/") else path == it.path
            if parsed.origin == it.origin and is_below:
                return it
    known = ", ".join(sorted(it.origin + it.path for it in allowed))
    known = known or "none (CACHEAPP['DOWNLOAD_WEBHOOKS'])"
    raise UrlRefused(f"{parsed.origin}{path[:200]} is not an allowed webhook; allowed: {known}")


def signature(key: str, event_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`; raise `ValueError` if the key is not base64."""
    secret = key.encode()
    if key.startswith(_KEY_PREFIX):
        try:
            secret = base64.b64decode(key.removeprefix(_KEY_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("the key is not base64 after whsec_") from None
    signed = hmac.new(secret, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(signed.digest()).decode()


class WebhookSender:
    """Sends notifications, each over a connection of its own."""

    def __init__(
        self,
        allowed: tuple[AllowedWebhook, ...],
        networks: tuple[Network, ...],
        within_s: float,
        *,
        proxied: bool = False,
    ) -> None:
        """`within_s`: the longest duration of an attempt, except for the lookup of the host name."""
        self._allowed = allowed
        self._networks = networks
        self._within_s = within_s
        self._proxied = proxied

    def send(self, url: str, event_id: str, timestamp: int, body: bytes) -> None:
        """Return if the receiver responded with success; raise `TransferFailed` or `UrlRefused`."""
        receiver = find_webhook(url, self._allowed)
        try:
            signed = signature(receiver.key.read(), event_id, timestamp, body)
        except ValueError as exc:
            # The log alone has the reason: it names paths and variables of this server.
            logger.warning("DOWNLOAD_WEBHOOKS of %s: %s", receiver.origin, exc)
            raise TransferFailed("its key cannot be read", retryable=True) from None
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signed,
        }
        self._post(url, UrlPolicy(frozenset([receiver.origin]), self._networks), headers, body)

    def _post(self, url: str, policy: UrlPolicy, headers: dict[str, str], body: bytes) -> None:
        pools = connections.pool_manager(1, Proxies.from_environment() if self._proxied else None)
        handle = SocketHandle()
        timer = threading.Timer(self._within_s, handle.shut_down)
        timer.daemon = True
        connections.bind(handle, policy.check_address)
        client = HTTPClient(
            pools, policy, handle, lambda: None, self._within_s, self._within_s, max_redirects=0
        )
        try:
            timer.start()
            response = client.post(url, headers, body)
            response.close()
        except UrlRefused:
            raise
        except Exception as exc:
            raise translate_error(exc) from exc
        finally:
            timer.cancel()
            connections.bind(None)
            pools.clear()
        if response.status in _SUCCESS:
            return
        if response.status in _REDIRECT:
            found = f"responded with {response.status}; redirects are not followed"
            raise TransferFailed(found, retryable=True)
        raise TransferFailed(
            f"responded with {response.status}", retryable=response.status != _GONE
        )
