"""Read the settings that grant access: API tokens, and the origins and buckets of downloads.

The readers return typed values; they raise `ValueError` with what they expect.
"""

import dataclasses
import re
from typing import Any
from urllib.parse import urlsplit


@dataclasses.dataclass(frozen=True)
class ApiToken:
    """A program that may use the API, identified by its secret."""

    name: str
    sha256: str
    """Digest of the secret, in hexadecimal. The settings do not contain the secret."""
    permissions: frozenset[str]


@dataclasses.dataclass(frozen=True)
class AllowedBucket:
    """A bucket, or a prefix in it, that the API may download, and its location."""

    name: str
    prefix: str
    """Empty, or ends in `/`: `public` would also match `public-keys`."""
    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False


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
    """Read `{name: {"sha256": …, "permissions": […]}}`."""
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
    if not isinstance(entry, dict) or entry.keys() != {"sha256", "permissions"}:
        raise ValueError(f"'sha256' and 'permissions' for {name!r}, and nothing else")
    digest, permissions = entry["sha256"], entry["permissions"]
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ValueError(f"the SHA-256 of the secret of {name!r}, as 64 hexadecimal digits")
    listed = isinstance(permissions, list | tuple | set | frozenset)
    if not listed or not all(
        isinstance(it, str) and _PERMISSION.fullmatch(it) for it in permissions
    ):
        raise ValueError(f"permissions such as ['cacheapp.view_downloadjob'] for {name!r}")
    return ApiToken(name, digest.lower(), frozenset(permissions))


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
