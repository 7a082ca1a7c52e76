"""A factory that keeps its result, so that a failure of the store does not run it again."""

import inspect
from typing import Any


class RunOnce:
    """Calls a factory at most once, and keeps its value or, in `error`, its exception.

    A `default` that is not callable is its own result.
    """

    def __init__(self, default: Any) -> None:
        self._default = default
        self._results: list[Any] = []
        self.error: BaseException | None = None

    def __call__(self) -> Any:
        """Return the result, or raise the exception; call the factory if it has not been called."""
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
        """Return the result, awaited if it is awaitable."""
        result = self()
        if inspect.isawaitable(result):
            try:
                self._results[0] = result = await result
            except BaseException as exc:
                self.error = exc
                raise
        return result
