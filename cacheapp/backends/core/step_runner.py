"""Runs the steps that `single_flight` yields: in a thread, or in a task of an event loop."""

import asyncio
import contextlib
import contextvars
import dataclasses
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any

from asgiref.sync import ThreadSensitiveContext
from django.db import connections

from cacheapp.backends.core.async_methods import in_thread, where_django_would
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.plain_data import are_plain
from cacheapp.backends.core.refresh import refresher
from cacheapp.backends.core.renewer import renewer
from cacheapp.backends.core.store import Store
from cacheapp.errors import CacheappError
from cacheapp.thread_lock import reentrant_lock

logger = logging.getLogger(__name__)


class _HeldLease:
    """A lease of this thread or task, or of the task that started this one; ended with its factory.

    A context variable alone would not do: a task inherits a copy, which nothing resets. It counts while
    its lock is locked, for which nobody ever waits: the interpreter enters and leaves a `with` block
    over a lock in one step each, so that a signal handler cannot prolong it. The variable keeps the last
    one, which no longer counts: resetting it would be one more call after which a handler could raise.
    """

    __slots__ = ("lock", "outer")

    def __init__(self, outer: "_HeldLease | None") -> None:
        # Python 3.14 may leave another lock held, see `reentrant_lock`, and `locked` is new there.
        self.lock: Any = reentrant_lock() if sys.version_info >= (3, 14) else threading.Lock()
        self.outer = outer


_lease: contextvars.ContextVar[_HeldLease | None] = contextvars.ContextVar(
    "cacheapp_lease", default=None
)


def holds_lease() -> bool:
    """Return True while this thread or task may hold a lease, whose value it computes."""
    return _innermost() is not None


def _innermost() -> _HeldLease | None:
    lease = _lease.get()
    while lease is not None and not lease.lock.locked():
        lease = lease.outer
    return lease


def holding_lease() -> contextlib.AbstractContextManager[Any]:
    """Return what marks this context while a `with` block over it runs; begin before the store grants it."""
    lease = _HeldLease(_innermost())
    _lease.set(lease)
    lock: contextlib.AbstractContextManager[Any] = lease.lock
    return lock


class _CarriedError(Exception):
    """Carries a `StopIteration`, which no generator may raise."""


class _CarriedExit(BaseException):
    """Carries a `GeneratorExit`, which would close the generator of the steps."""


def _resume(steps: "Steps", result: Any, error: BaseException | None) -> "Step":
    """Send the result of the last step, or throw its error; return the next step."""
    if error is None:
        return steps.send(result)
    if isinstance(error, StopIteration):
        raise_it: BaseException = _CarriedError()
    elif isinstance(error, GeneratorExit):
        raise_it = _CarriedExit()
    else:
        return steps.throw(error)
    raise_it.__cause__ = error
    return steps.throw(raise_it)


@dataclasses.dataclass(frozen=True)
class CallStore:
    """Call the store; send its result."""

    call: Callable[..., Any]
    args: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class WaitForChange:
    """Wait until `key` may hold something other than `seen`, for at most `within_s` seconds."""

    key: str
    seen: Payload
    within_s: float


@dataclasses.dataclass(frozen=True)
class RunFactory:
    """Call the factory; send its value. With a lease, encode it too; send the value and its payload.

    The lease is renewed until both are done.
    """

    lease_key: str = ""
    lease: bytes = b""
    encode: Callable[[Any], Payload] | None = None


@dataclasses.dataclass(frozen=True)
class RunInBackground:
    """Run these steps in the background; send False if there is no capacity for them."""

    steps: "Steps"


Step = CallStore | WaitForChange | RunFactory | RunInBackground
Steps = Generator[Step, Any, Any]
Factory = Callable[[], Any]


class StepRunner:
    """Runs steps with one store. Leases are renewed for `lease_s` seconds at a time."""

    def __init__(self, store: Store, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s

    def run(self, steps: Steps, factory: Factory) -> Any:
        """Run the steps in this thread; return what they return.

        A signal handler may raise between two steps. Then the steps get the exception, so that they
        release their lease.
        """
        try:
            return self._run(steps, factory, None)
        except BaseException as exc:
            if inspect.getgeneratorstate(steps) == inspect.GEN_CLOSED:
                raise  # the steps raised it
            return self._run(steps, factory, exc)

    def _run(self, steps: Steps, factory: Factory, error: BaseException | None) -> Any:
        result: Any = None
        while True:
            try:
                step = _resume(steps, result, error)
            except StopIteration as stop:
                return stop.value
            except (_CarriedError, _CarriedExit) as carried:
                raise carried.__cause__ or carried from None
            result, error = None, None
            try:
                if isinstance(step, CallStore):
                    result = step.call(*step.args)
                elif isinstance(step, WaitForChange):
                    self._store.wait(step.key, step.seen, step.within_s)
                elif isinstance(step, RunInBackground):
                    result = self._run_in_background(step.steps, factory)
                else:
                    result = self._run_factory(step, factory)
            except BaseException as exc:  # noqa: BLE001 (the steps handle it, and raise it again)
                error = exc

    def _run_factory(self, step: RunFactory, factory: Factory) -> Any:
        if step.encode is None:
            return factory()
        with holding_lease(), self._renewing(step):
            value = factory()
            return value, step.encode(value)

    def _renewing(self, step: RunFactory) -> AbstractContextManager[None]:
        args = (step.lease_key, step.lease, step.lease, self._lease_s)
        return renewer.renewing(lambda: self._store.fill(*args), self._lease_s)

    def _run_in_background(self, steps: Steps, factory: Factory) -> bool:
        return refresher.submit(lambda: self.run(steps, factory))

    async def arun(self, steps: Steps, factory: Factory) -> Any:
        """Run the steps in this task; store calls run in threads."""
        result: Any = None
        error: BaseException | None = None
        cancelled: asyncio.CancelledError | None = None
        while True:
            try:
                step = _resume(steps, result, error)
            except StopIteration as stop:
                if cancelled is not None:
                    raise cancelled from None
                return stop.value
            except (_CarriedError, _CarriedExit) as carried:
                raise carried.__cause__ or carried from None
            if cancelled is not None and not isinstance(step, CallStore):
                error, cancelled = cancelled, None
                continue
            result, error = None, None
            try:
                if isinstance(step, CallStore):
                    result, cancellation = await _call_store(step)
                    cancelled = cancelled or cancellation
                elif isinstance(step, WaitForChange):
                    await self._store.await_change(step.key, step.seen, step.within_s)
                elif isinstance(step, RunInBackground):
                    result = self._start_task(step.steps, factory)
                else:
                    result = await self._arun_factory(step, factory)
            except BaseException as exc:  # noqa: BLE001 (the steps handle it, and raise it again)
                error = exc

    async def _arun_factory(self, step: RunFactory, factory: Factory) -> Any:
        if step.encode is None:
            return await _await_factory(factory)
        with holding_lease(), self._renewing(step):
            value = await _await_factory(factory)
            if are_plain([value]):
                return value, step.encode(value)
            return value, await where_django_would(step.encode, value)

    def _start_task(self, steps: Steps, factory: Factory) -> bool:
        task = asyncio.create_task(_in_own_thread(self.arun(steps, factory)))
        _background_tasks.add(task)
        task.add_done_callback(_log_failure)
        return True


async def _in_own_thread(work: Coroutine[Any, Any, Any]) -> None:
    """Await the work apart from the request that started it, which may end or be rolled back first.

    Its sync code runs in a thread of its own, and the thread's database connections are closed at the end.
    """
    async with ThreadSensitiveContext():
        try:
            await work
        finally:
            await where_django_would(connections.close_all)


_background_tasks: set[asyncio.Task[Any]] = set()  # asyncio itself keeps only weak references


def _log_failure(task: "asyncio.Task[Any]") -> None:
    _background_tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error(
            "refreshing a cache entry failed; its old value was kept",
            exc_info=error,
            extra={"event": "cache_refresh_failed"},
        )


async def _call_store(step: CallStore) -> tuple[Any, asyncio.CancelledError | None]:
    """Return the store's result, and the cancellation if the task was cancelled during the call.

    The steps need the result even then: if it is a lease, they must release it.
    """
    call = asyncio.ensure_future(in_thread(step.call, *step.args))
    try:
        return await asyncio.shield(call), None
    except asyncio.CancelledError as exc:
        try:
            return await call, exc
        except CacheappError:
            raise exc from None


async def _await_factory(factory: Factory) -> Any:
    result = factory()
    return await result if inspect.isawaitable(result) else result
