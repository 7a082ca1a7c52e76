"""The placeholder for the store of a cache with wrong options."""

from typing import Any

from cacheapp.errors import OptionsRefused


class Misconfigured:
    """Raises `OptionsRefused`, with all mistakes, whenever the cache is used."""

    def __init__(self, message: str) -> None:
        self._message = message

    def end_request(self) -> None:
        """Do nothing: Django closes every cache after a request, used or not."""

    def __getattr__(self, name: str) -> Any:
        raise OptionsRefused(self._message)

    def __call__(self, *_args: Any) -> Any:
        """Raise the error."""
        raise OptionsRefused(self._message)
