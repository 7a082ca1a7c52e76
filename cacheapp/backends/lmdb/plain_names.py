"""Names of ordinary keys in one step, for the fast paths of the caches whose reads come from LMDB."""

from typing import Any

from django.core.cache.backends.base import (
    MEMCACHE_MAX_KEY_LENGTH,
    BaseCache,
    default_key_func,
)

from cacheapp.backends.core.shared import SharedCache
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.key_encoding import PREFIX_BYTES

MAX_NAME_BYTES = PREFIX_BYTES + MEMCACHE_MAX_KEY_LENGTH  # bounds the key in bytes and characters
COPIED_BELOW = 4096  # bytes: below this, a copy is faster than a view
_KEY_ATTRIBUTES = frozenset(["key_func", "key_prefix", "version"])


def is_plain_text(key: str) -> bool:
    """Return True if memcached accepts all characters of a key, and it can be encoded."""
    return key.isprintable() and " " not in key


class PlainNames(SharedCache):
    """A layer over `SharedCache` that knows how the names of its ordinary keys begin.

    `head + key.encode()` is the name of a `str` key of the alias's own version, if the key is plain
    text; `head` is empty if the keys of the alias are not Django's own.
    """

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        self._environment: Environment
        self._namespace: bytes
        self._environment, self._namespace = self._source_of_names()
        self._prepare_names()

    def _source_of_names(self) -> tuple[Environment, bytes]:
        """Return the environment that is read, and what all names in it begin with."""
        raise NotImplementedError

    def __setattr__(self, attribute: str, value: Any) -> None:
        super().__setattr__(attribute, value)
        if attribute in _KEY_ATTRIBUTES and "_head" in self.__dict__:
            self._prepare_names()

    def _prepare_names(self) -> None:
        """Note how names begin, with and without the version; `b""` if keys are not Django's own."""
        cls = type(self)
        standard = (
            self.key_func is default_key_func
            and cls.make_key is BaseCache.make_key
            and cls.validate_key is SharedCache.validate_key
        )
        stem = f"{self.key_prefix}:"
        head = f"{stem}{self.version}:"
        usable = standard and is_plain_text(head)
        self._stem = self._namespace + stem.encode() if usable else b""
        self._head = self._namespace + head.encode() if usable else b""

    def _name(self, key: Any, version: int | None) -> bytes | None:
        """Return the name of a key in LMDB, or `None` if the slow twin must handle the key.

        The fast paths do the same for most keys by themselves: a call takes as long.
        """
        text = f"{self.version if version is None else version!s}:{key!s}"
        return self._stem + text.encode() if self._stem and is_plain_text(text) else None
