"""What a factory made, kept for when the store fails after it ran."""

import inspect
from typing import Any


class RunOnce:
    """A factory, or a value, that runs once: a failure of the store must not run it again.

    What came of it is kept: a value, or in `error` what it raised.
    """

    def __init__(self, default: Any) -> None:
        self._default = default
        self._results: list[Any] = []
        self.error: BaseException | None = None

    def __call__(self) -> Any:
        """Return the result, computed now if it has not been; or raise what it raised."""
        if self.error is not None:
            raise self.error
        if not self._results:
            default = self._default
            try:
                self._results.append(default() if callable(default) else default)
            except BaseException as exc:
                self.error = exc
                raise
        return self._results[0]

    async def awaited(self) -> Any:
        """Return the result; await it first if it can be."""
        found = self()
        if inspect.isawaitable(found):
            try:
                self._results[0] = found = await found
            except BaseException as exc:
                self.error = exc
                raise
        return found
