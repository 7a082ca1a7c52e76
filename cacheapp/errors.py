"""The exceptions of cacheapp: few classes, split by what the caller should do next."""

from django.core.exceptions import ImproperlyConfigured


class CacheappError(Exception):
    """Base of every error that cacheapp raises on purpose."""


class StoreUnavailable(CacheappError):
    """The store is unreachable or refused access. The operation did not happen; try later."""


class OutcomeUnknown(CacheappError):
    """The request was sent and the reply lost: it may have happened, or may still. Read before a retry."""


class ReentrantCall(CacheappError):
    """A signal handler, finaliser or callback used a cache inside an operation of the same thread.

    The call did nothing; the interrupted operation goes on. Use the cache after it, or in a thread.
    """


class StoreFull(CacheappError):
    """The store is full. The write did not happen; reads still work."""


class ValueRefused(CacheappError, TypeError):
    """The serializer cannot restore this value exactly. Nothing was stored."""


class ClearRefused(CacheappError):
    """The keys of the alias cannot be distinguished from other keys. Nothing was removed."""


class MoveRefused(CacheappError):
    """The versions of the key are in different slots of a cluster. Nothing was changed."""


class LockLost(CacheappError):
    """The lock expired before its release or extension; another owner may have held it since."""


class OptionsRefused(CacheappError, ImproperlyConfigured):
    """A cache has invalid options. The message names each, what was found and what was expected."""


class ExtraMissing(CacheappError, ImportError):
    """A package of an extra is not installed, or in another release.

    The message names the extra and the command.
    """


STORE_FAILED = (StoreUnavailable, OutcomeUnknown, StoreFull)
"""The store did not do what it was called for; a later call may succeed."""
