"""What cacheapp raises: few classes, split by what the caller should do next."""

from django.core.exceptions import ImproperlyConfigured


class CacheappError(Exception):
    """Base of every error that cacheapp raises on purpose."""


class StoreUnavailable(CacheappError):
    """The store cannot be reached or did not let us in; the operation did not happen. Try later."""


class OutcomeUnknown(CacheappError):
    """The request was sent and its answer lost: it may have happened, or may yet. Read before retrying."""


class ReentrantCall(CacheappError):
    """A signal handler, finaliser or callback used a cache inside an operation of the same thread.

    The call did nothing; the interrupted operation goes on. Use the cache after it, or in a thread.
    """


class StoreFull(CacheappError):
    """The store has no room; the write did not happen, and reads go on."""


class ValueRefused(CacheappError, TypeError):
    """The serializer cannot bring this value back exactly as it was; nothing was stored."""


class ClearRefused(CacheappError):
    """The alias's own keys cannot be told from others'; nothing was removed."""


class LockLost(CacheappError):
    """A lock is not held any more by who would release or extend it; another may have had it."""


class OptionsRefused(CacheappError, ImproperlyConfigured):
    """A cache's options are wrong; the message names each, what was found and what is expected."""
