"""The `a…` methods of a store that answers in microseconds: called straight through.

A hop to a thread and back costs twenty times what a read does. A write waits for nobody unless
another one is under way, perhaps in a process that was stopped: then a thread waits for it, and the
event loop goes on. Whether one is under way is a hint (`marks.WRITER_ACTIVE`): in the moment between the
look and the write another writer may begin, and holds the loop up for as long as one write takes.
"""

from collections.abc import Callable
from typing import Any

from cacheapp.backends.core.async_methods import AsyncTwins, in_thread
from cacheapp.backends.lmdb.environment import Environment


class InlineAsyncMethods(AsyncTwins):
    """Mix-in: how the twins call. What goes through many keys at a time goes to a thread all the same."""

    _environment: Environment

    async def _read_by(self, method: Callable[..., Any], *args: Any) -> Any:
        return method(*args)

    async def _written_by(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._environment.is_busy():
            return await in_thread(method, *args, **kwargs)
        return method(*args, **kwargs)

    async def aclear(self) -> None:
        """Remove this alias's keys; in a thread, for there may be many."""
        await in_thread(self.clear)
