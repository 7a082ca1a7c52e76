"""What the settings grant to others: to programs, permissions; to orders, places to fetch from.

The readers return what a part of the setting says; they raise `ValueError` with what is expected.
"""

import dataclasses
import re
from typing import Any
from urllib.parse import urlsplit


@dataclasses.dataclass(frozen=True)
class ApiToken:
    """A program that may use the API; who has the secret is it."""

    name: str
    sha256: str
    """Of the secret, hexadecimal: the settings do not know the secret itself."""
    permissions: frozenset[str]


@dataclasses.dataclass(frozen=True)
class AllowedBucket:
    """What of an object store may be downloaded over HTTP, and where it is."""

    name: str
    prefix: str
    """Empty, or ending in `/`: `public` would let in `public-keys` too."""
    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False


def read_origin(value: Any) -> str:
    """Return `scheme://host:port`."""
    expected = f"origins such as 'https://files.example.com', without a path; not {value!r}"
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
    """Return the programs of `{name: {"sha256": …, "permissions": […]}}`."""
    if not isinstance(value, dict):
        raise ValueError("a dict: {name: {'sha256': …, 'permissions': […]}}")
    found = tuple(_token(name, entry) for name, entry in value.items())
    if len({token.sha256 for token in found}) < len(found):
        raise ValueError("each secret under one name; two entries have the same 'sha256'")
    return found


def _token(name: Any, entry: Any) -> ApiToken:
    """Read an entry; a message never shows what may be a secret that was put in the wrong place."""
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
    """Return what may be fetched, of `{"s3://bucket/prefix/": place}` or a list without places."""
    if isinstance(value, list | tuple | set | frozenset):
        value = dict.fromkeys(value)
    if not isinstance(value, dict):
        raise ValueError("a list of 's3://bucket/prefix/', or a dict of them with their places")
    return tuple(_bucket(text, place or {}) for text, place in value.items())


def _bucket(text: Any, place: Any) -> AllowedBucket:
    found = _BUCKET.fullmatch(text) if isinstance(text, str) else None
    if found is None or (found[2] and not found[2].endswith("/")):
        raise ValueError(f"'s3://bucket' or 's3://bucket/prefix/', which ends in /; not {text!r}")
    known = isinstance(place, dict) and place.keys() <= _PLACE.keys()
    if not known or not all(isinstance(place[name], _PLACE[name]) for name in place):
        raise ValueError(
            f"for {text!r} a dict of 'endpoint' and 'region' (text) and 'anonymous' (True or False)"
        )
    if place.get("endpoint"):
        read_origin(place["endpoint"])
    return AllowedBucket(found[1], found[2] or "", **place)
