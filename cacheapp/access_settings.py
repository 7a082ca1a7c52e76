"""Read the settings that grant access: API tokens, and what downloads may use and notify; name users.

Downloads have origins, headers, buckets and webhooks. The readers return typed values; they raise
`ValueError` with what they expect.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclasses.dataclass(frozen=True)
class ApiToken:
    """A program that may use the API, identified by its secret."""

    name: str
    sha256: str
    """Digest of the secret, in hexadecimal. The settings do not contain the secret."""
    permissions: frozenset[str]
    user: str | None = None
    """The name of the user for whom it acts: that user's jobs, and only permissions that both have.
    `None`: a client of its own."""


@dataclasses.dataclass(frozen=True)
class AllowedBucket:
    """A bucket, or a prefix in it, that the API may download, and its location."""

    name: str
    prefix: str
    """Empty, or ends in `/`: `public` would also match `public-keys`."""
    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False


def user_key(user: Any) -> str:
    """Return the key of a user, under which jobs belong to it."""
    return f"user:{user.pk}"


def user_name(user: Any) -> str:
    """Return the name of a user for people, which is unique too."""
    return f"user {user.pk} ({user.get_username()})"


def read_origin(value: Any) -> str:
    """Return `scheme://host:port`."""
    expected = f"origins such as 'https://files.example.com', without a path, not {value!r}"
    if not isinstance(value, str):
        raise ValueError(expected)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not bare:
        raise ValueError(expected)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or {'http': 80, 'https': 443}[parts.scheme]}"


_SHA256 = re.compile("[0-9a-fA-F]{64}")
_PERMISSION = re.compile(r"\w+\.\w+")


def read_tokens(value: Any) -> tuple[ApiToken, ...]:
    """Read `{name: {"sha256": …, "permissions": […], "user": …}}`; `user` is optional."""
    if not isinstance(value, dict):
        raise ValueError("a dict: {name: {'sha256': …, 'permissions': […]}}")
    found = tuple(_token(name, entry) for name, entry in value.items())
    if len({token.sha256 for token in found}) < len(found):
        raise ValueError("each secret under one name; two entries have the same 'sha256'")
    return found


def _token(name: Any, entry: Any) -> ApiToken:
    """Read an entry. No message shows its values, which may be a misplaced secret."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,40}", name):
        raise ValueError("names of 1 to 40 letters, digits and . _ -")
    if not isinstance(entry, dict) or entry.keys() - {"user"} != {"sha256", "permissions"}:
        raise ValueError(
            f"'sha256' and 'permissions' for {name!r}, perhaps 'user', and nothing else"
        )
    digest, permissions = entry["sha256"], entry["permissions"]
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ValueError(f"the SHA-256 of the secret of {name!r}, as 64 hexadecimal digits")
    listed = isinstance(permissions, list | tuple | set | frozenset)
    if not listed or not all(
        isinstance(it, str) and _PERMISSION.fullmatch(it) for it in permissions
    ):
        raise ValueError(
            f"permissions such as ['cacheapp_downloads.view_downloadjob'] for {name!r}"
        )
    user = entry.get("user")
    if user is not None and (not isinstance(user, str) or not user):
        raise ValueError(f"a user name, or None, as the 'user' of {name!r}")
    return ApiToken(name, digest.lower(), frozenset(permissions), user)


_BUCKET = re.compile(r"s3://([a-zA-Z0-9][a-zA-Z0-9._-]+)(?:/(.*))?")
_PLACE = {"endpoint": (str, type(None)), "region": (str, type(None)), "anonymous": (bool,)}


def read_buckets(value: Any) -> tuple[AllowedBucket, ...]:
    """Read `{"s3://bucket/prefix/": location}`, or a list of URLs without locations."""
    if isinstance(value, list | tuple | set | frozenset):
        value = dict.fromkeys(value)
    if not isinstance(value, dict):
        raise ValueError("a list of 's3://bucket/prefix/', or a dict of them with their locations")
    return tuple(_bucket(text, place or {}) for text, place in value.items())


def _bucket(text: Any, place: Any) -> AllowedBucket:
    found = _BUCKET.fullmatch(text) if isinstance(text, str) else None
    if found is None or (found[2] and not found[2].endswith("/")):
        raise ValueError(f"'s3://bucket' or 's3://bucket/prefix/', ending in /, not {text!r}")
    known = isinstance(place, dict) and place.keys() <= _PLACE.keys()
    if not known or not all(isinstance(place[name], _PLACE[name]) for name in place):
        raise ValueError(
            f"a dict of 'endpoint' and 'region' (str) and 'anonymous' (bool) for {text!r}"
        )
    if place.get("endpoint"):
        read_origin(place["endpoint"])
    return AllowedBucket(found[1], found[2] or "", **place)


_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[\x20-\x7e]{1,8192}")
_OWN_HEADERS = frozenset(
    [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "if-match",
        "if-range",
        "proxy-authorization",
        "range",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers that the client of downloads sets itself."""
_SECRET_FORMS = ({"env"}, {"env", "prefix"}, {"file"}, {"file", "prefix"})


@dataclasses.dataclass(frozen=True)
class HeaderValue:
    """The value of a header, or the place that it is read from each time it is sent."""

    text: str = dataclasses.field(default="", repr=False)
    variable: str = ""
    path: str = ""
    prefix: str = ""

    def read(self) -> str:
        """Return the value; raise `ValueError` without it if it cannot be sent."""
        text = self.text
        if self.variable:
            text = os.environ.get(self.variable, "")
            if not text:
                raise ValueError(f"the environment variable {self.variable} is not set")
        if self.path:
            try:
                text = Path(self.path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "is not UTF-8"
                raise ValueError(f"the file {self.path}: {reason}") from None
        text = self.prefix + text.strip()
        if not _VALUE.fullmatch(text):
            place = self.variable or self.path or "its text"
            raise ValueError(f"the value from {place} is not one line of visible ASCII characters")
        return text


@dataclasses.dataclass(frozen=True)
class OriginHeaders:
    """The headers that are sent to one origin."""

    origin: str
    headers: tuple[tuple[str, HeaderValue], ...]


def read_headers(value: Any) -> tuple[OriginHeaders, ...]:
    """Read `{"https://host": {"Authorization": {"env": "NAME", "prefix": "Bearer "}}}`.

    No message shows a value, which may be a secret.
    """
    if not isinstance(value, dict):
        raise ValueError("a dict of origins, each with a dict of headers")
    found = tuple(
        OriginHeaders(read_origin(origin), _headers(origin, headers))
        for origin, headers in value.items()
    )
    if len({it.origin for it in found}) < len(found):
        raise ValueError("each origin once")
    return found


def _headers(origin: str, headers: Any) -> tuple[tuple[str, HeaderValue], ...]:
    if not isinstance(headers, dict) or not headers:
        raise ValueError(f"a dict of headers for {origin!r}")
    if len({str(name).lower() for name in headers}) < len(headers):
        raise ValueError(f"each header of {origin!r} once")
    return tuple((name, _header(origin, name, value)) for name, value in headers.items())


def _header(origin: str, name: Any, value: Any) -> HeaderValue:
    if not isinstance(name, str) or not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
        raise ValueError(f"names of headers for {origin!r} that downloads do not set themselves")
    if isinstance(value, str) and _VALUE.fullmatch(value):
        return HeaderValue(value)
    known = isinstance(value, dict) and value.keys() in _SECRET_FORMS
    if not known or not all(isinstance(it, str) for it in value.values()):
        raise ValueError(
            f"a line of text, {{'env': …}} or {{'file': …}}, with an optional 'prefix', for {name!r} of "
            f"{origin!r}"
        )
    return HeaderValue(
        variable=value.get("env", ""), path=value.get("file", ""), prefix=value.get("prefix", "")
    )


@dataclasses.dataclass(frozen=True)
class AllowedWebhook:
    """A receiver of notifications, or all below a URL, and the key that signs them."""

    origin: str
    path: str
    """Ends in `/`: all URLs below it; else this one alone."""
    key: HeaderValue


_KEY_CHARACTERS = 16
_WEBHOOK_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]+/?)*")


def read_webhooks(value: Any) -> tuple[AllowedWebhook, ...]:
    """Read `{"https://host/path/": {"env": "NAME"}}`.

    No message shows a value, which may be a secret.
    """
    if not isinstance(value, dict):
        raise ValueError("a dict: {'https://host/path/': {'env': …}}")
    found = tuple(_webhook(url, key) for url, key in value.items())
    if len({(it.origin, it.path) for it in found}) < len(found):
        raise ValueError("each URL once")
    return found


def _webhook(url: Any, key: Any) -> AllowedWebhook:
    expected = f"an origin or a URL without dot segments and query, not {url!r}"
    if not isinstance(url, str):
        raise ValueError(expected)
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    origin, path = read_origin(f"{scheme}://{host}"), slash + path or "/"
    if not _WEBHOOK_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError(expected)
    if isinstance(key, str) and len(key) >= _KEY_CHARACTERS and _VALUE.fullmatch(key):
        return AllowedWebhook(origin, path, HeaderValue(key))
    known = isinstance(key, dict) and key.keys() in ({"env"}, {"file"})
    if not known or not all(isinstance(it, str) and it for it in key.values()):
        raise ValueError(
            f"a key of at least {_KEY_CHARACTERS} characters, {{'env': …}} or {{'file': …}}, for {url!r}"
        )
    return AllowedWebhook(
        origin, path, HeaderValue(variable=key.get("env", ""), path=key.get("file", ""))
    )
