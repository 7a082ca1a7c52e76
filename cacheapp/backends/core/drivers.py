"""The two that take the steps of `single_flight`: in a thread, or in a task of an event loop."""

import asyncio
import contextvars
import dataclasses
import inspect
import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

from cacheapp.backends.core.async_methods import AsyncMethods, in_thread
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.refresh import refresher
from cacheapp.backends.core.renewer import renewer
from cacheapp.backends.core.store import Store
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)

holding = contextvars.ContextVar("cacheapp_holds_a_lease", default=False)
"""Whether this thread or task computes while it holds a lease."""


@dataclasses.dataclass(frozen=True)
class Ask:
    """Call the store; send its answer."""

    call: Callable[..., Any]
    args: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Wait:
    """Wait until something else than `seen` may stand at `key`, or `within_s` seconds are over."""

    key: str
    seen: Payload
    within_s: float


@dataclasses.dataclass(frozen=True)
class Compute:
    """Call the factory; send its value. `lease` is renewed at `place` meanwhile, if there is one."""

    place: str = ""
    lease: bytes = b""


@dataclasses.dataclass(frozen=True)
class Refresh:
    """Take these steps in the background; send whether somebody will."""

    steps: "Steps"


Step = Ask | Wait | Compute | Refresh
Steps = Generator[Step, Any, Any]


class Drivers(AsyncMethods):
    """Mix-in: takes the steps with the store of the cache."""

    _store: Store
    options: dict[str, Any]

    def _drive(self, steps: Steps, factory: Callable[[], Any]) -> Any:
        """Take the steps in this thread; return what they return."""
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            answer, error = None, None
            try:
                if type(step) is Ask:
                    answer = step.call(*step.args)
                elif type(step) is Wait:
                    self._store.wait(step.key, step.seen, step.within_s)
                elif type(step) is Refresh:
                    answer = self._refresh(step, factory)
                else:
                    answer = self._compute(step, factory)  # type: ignore[arg-type]
            except BaseException as exc:  # noqa: BLE001 (the steps decide, and raise it again)
                error = exc

    def _compute(self, step: Compute, factory: Callable[[], Any]) -> Any:
        if not step.lease:
            return factory()
        token = holding.set(True)
        try:
            with self._renewing(step):
                return factory()
        finally:
            holding.reset(token)

    def _renewing(self, step: Compute) -> AbstractContextManager[None]:
        lease_s = self.options["lease_time"]
        again = (step.place, step.lease, step.lease, lease_s)
        return renewer.renewing(lambda: self._store.fill(*again), lease_s)

    def _refresh(self, step: Refresh, factory: Callable[[], Any]) -> bool:
        return refresher.submit(lambda: self._drive(step.steps, factory))

    async def _adrive(self, steps: Steps, factory: Callable[[], Any]) -> Any:
        """Take the steps in this task; what blocks goes to a thread."""
        answer: Any = None
        error: BaseException | None = None
        cancelled: asyncio.CancelledError | None = None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as stop:
                if cancelled is not None:
                    raise cancelled from None
                return stop.value
            if cancelled is not None and type(step) is not Ask:
                error, cancelled = cancelled, None
                continue
            answer, error = None, None
            try:
                if type(step) is Ask:
                    answer, interrupt = await _asked(step)
                    cancelled = cancelled or interrupt
                elif type(step) is Wait:
                    await self._store.await_change(step.key, step.seen, step.within_s)
                elif type(step) is Refresh:
                    answer = self._arefresh(step, factory)
                else:
                    answer = await self._acompute(step, factory)  # type: ignore[arg-type]
            except BaseException as exc:  # noqa: BLE001 (the steps decide, and raise it again)
                error = exc

    async def _acompute(self, step: Compute, factory: Callable[[], Any]) -> Any:
        if not step.lease:
            return await _result(factory)
        token = holding.set(True)
        try:
            with self._renewing(step):
                return await _result(factory)
        finally:
            holding.reset(token)

    def _arefresh(self, step: Refresh, factory: Callable[[], Any]) -> bool:
        task = asyncio.create_task(self._adrive(step.steps, factory))
        _refreshing.add(task)
        task.add_done_callback(_refreshed)
        return True


_refreshing: set[asyncio.Task[Any]] = set()  # asyncio itself keeps no strong reference


def _refreshed(task: "asyncio.Task[Any]") -> None:
    _refreshing.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error(
            "refreshing an entry failed: its old value is used on",
            exc_info=error,
            extra={"event": "cache_refresh_failed"},
        )


async def _asked(step: Ask) -> tuple[Any, asyncio.CancelledError | None]:
    """Return the store's answer; and if the task was cancelled meanwhile, by what.

    The steps must learn the answer all the same: if it is a lease, they have to give it back.
    """
    asking = asyncio.ensure_future(in_thread(step.call, *step.args))
    try:
        return await asyncio.shield(asking), None
    except asyncio.CancelledError as exc:
        try:
            return await asking, exc
        except CacheappError:
            raise exc from None


async def _result(factory: Callable[[], Any]) -> Any:
    found = factory()
    return await found if inspect.isawaitable(found) else found
