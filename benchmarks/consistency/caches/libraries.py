"""Caches that are not backends of Django, as their documentation makes them, for `cachecheck`.

`CHECK_DIR` is a directory and `CHECK_REDIS` the URL of a server, both private; `CHECK_STASH` is the
socket of a Gunicorn's dirty arbiter. Each library is imported only by its own function.
"""

import os
from pathlib import Path
from typing import Any

from cacheapp.cachecheck.adapters.base import decode, encode


def _directory(name: str) -> str:
    return str(Path(os.environ["CHECK_DIR"]) / name)


def dogpile() -> Any:
    """Return a region on Redis, with a lock that all processes share."""
    from dogpile.cache import make_region  # noqa: PLC0415

    arguments = {"url": os.environ["CHECK_REDIS"], "distributed_lock": True, "lock_timeout": 20}
    return make_region().configure("dogpile.cache.redis", arguments=arguments)


def cashews() -> Any:
    """Return a cache on Redis."""
    from cashews import Cache  # noqa: PLC0415

    cache = Cache()
    cache.setup(os.environ["CHECK_REDIS"])
    return cache


def aiocache() -> Any:
    """Return a cache on Redis, with a serializer that lets the server count."""
    from aiocache import Cache  # noqa: PLC0415
    from aiocache.serializers import BaseSerializer  # noqa: PLC0415

    class Numbers(BaseSerializer):  # type: ignore[misc]  # no type hints
        """Integers as text, bytes as they are."""

        DEFAULT_ENCODING = None

        def dumps(self, value: Any) -> bytes:
            """Return what is stored."""
            return encode(value)

        def loads(self, value: Any) -> Any:
            """Return what was stored."""
            return decode(value)

    cache = Cache.from_url(os.environ["CHECK_REDIS"])
    cache.serializer = Numbers()
    return cache


def cachelib() -> Any:
    """Return a cache of files."""
    from cachelib import FileSystemCache  # noqa: PLC0415

    return FileSystemCache(_directory("cachelib"))


def stash() -> Any:
    """Return a table of Gunicorn's stash."""
    from gunicorn.dirty.stash import StashClient  # noqa: PLC0415

    return StashClient(os.environ["CHECK_STASH"]).table("cachecheck")
