"""What stands in the place of a store that cannot be, because the options are wrong."""

from typing import Any

from cacheapp.errors import OptionsRefused


class Misconfigured:
    """Stands where the store of a cache with wrong options would: every use says what is wrong."""

    def __init__(self, message: str) -> None:
        self._message = message

    def end_request(self) -> None:
        """Do nothing: Django closes every cache, used or not."""

    def __getattr__(self, name: str) -> Any:
        raise OptionsRefused(self._message)

    def __call__(self, *_args: Any) -> Any:
        """Say what is wrong."""
        raise OptionsRefused(self._message)
