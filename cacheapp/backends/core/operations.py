"""Calls subscribers after each operation of a cache; without a subscriber, no operation pays for it.

`subscribe` replaces the methods of the cache classes in use by methods that measure, and the last
subscriber that leaves puts the original ones back. So the methods themselves contain no branch.

One call of the application is one operation: `expire` calls `touch`, and `aget` calls `get` in perhaps
another thread, but a context variable marks the operation in progress, and calls inside it are not
reported. What the factory of `get_or_set` does is not inside: its calls are operations of their own.
"""

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from operator import itemgetter, methodcaller
from typing import Any

from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.core.operation import Method, Operation, get_current, set_current
from cacheapp.backends.local import forks
from cacheapp.backends.local.interruptions import is_interruption
from cacheapp.clock import stopwatch_ns

logger = logging.getLogger(__name__)
_failures = LogThrottle()

Subscriber = Callable[[Operation], object]
Around = Callable[[Operation], AbstractContextManager[object]]
_Entered = list[AbstractContextManager[object]]


class Timed:
    """The function that a `get_or_set` call got: measures it, outside the operation that calls it."""

    def __init__(self, operation: Operation, factory: Method) -> None:
        self._operation = operation
        self._factory = factory
        self._made_ns = stopwatch_ns()

    def __call__(self) -> Any:
        """Call the function; measure its awaitable too, if it returns one."""
        entered: _Entered = []
        began_ns = stopwatch_ns()
        try:
            self._leave(began_ns, entered)
            result = self._factory()
        finally:
            try:
                self._return(began_ns, entered)
            finally:
                _exit_all(entered)  # if a signal handler raised before the end of `_return`
        return self._awaited(result) if inspect.isawaitable(result) else result

    async def _awaited(self, result: Awaitable[Any]) -> Any:
        entered: _Entered = []
        began_ns = stopwatch_ns()
        try:
            self._leave(began_ns, entered)
            return await result
        finally:
            try:
                self._return(began_ns, entered)
            finally:
                _exit_all(entered)

    def _leave(self, began_ns: int, entered: _Entered) -> None:
        operation = self._operation
        if operation.is_running and get_current() is operation:  # no background refresh
            operation.spent_ns = began_ns - self._made_ns
            _enter_all(operation, entered)
        set_current(None)

    def _return(self, began_ns: int, entered: _Entered) -> None:
        operation = self._operation
        set_current(operation)
        operation.factory_seconds += (stopwatch_ns() - began_ns) / 1e9
        _exit_all(entered)


_enter, _exit = methodcaller("__enter__"), methodcaller("__exit__", None, None, None)


def _enter_all(operation: Operation, entered: _Entered) -> None:
    """Enter the context manager of each subscriber that has one, and add it to `entered`."""
    for around in _observation.arounds:
        try:
            managers = [around(operation)]
            # In one call, so that no signal handler raises between the two.
            entered.extend(map(itemgetter(0), zip(managers, map(_enter, managers), strict=True)))
        except Exception as exc:
            if is_interruption(exc):
                raise
            _note_failure(around, exc)


def _exit_all(entered: _Entered) -> None:
    """Exit them in reverse order; each is exited and removed from `entered` in one call, as above."""
    while entered:
        manager = entered[-1]
        try:
            list(map(_exit, map(entered.pop, [-1])))
        except Exception as exc:
            if is_interruption(exc):
                raise
            _note_failure(manager, exc)


def _note_failure(subscriber: object, error: Exception) -> None:
    if (withheld := _failures.due()) is not None:
        logger.error(
            "a subscriber to cache operations failed: %r (%d more since the last message)",
            subscriber,
            withheld,
            exc_info=error,
            extra={"event": "operation_subscriber_failed"},
        )


class _Observation:
    """The subscribers, the classes in use, and the methods that are replaced while there are any.

    `_lock` guards all of them. `subscribers` and `arounds` are replaced whole, so that they are read
    without a lock.
    """

    def __init__(self) -> None:
        self.subscribers: tuple[Subscriber, ...] = ()
        self.arounds: tuple[Around, ...] = ()
        self._lock = forks.ForkLock()
        self._measure: dict[type, Mapping[str, Callable[[Method], Method]]] = {}
        self._replaced: list[tuple[type, str, Method | None]] = []
        forks.register(
            before=self._lock.before, in_parent=self._lock.in_parent, in_child=self._lock.in_child
        )

    def watch(self, cls: type, measure: Mapping[str, Callable[[Method], Method]]) -> None:
        """Have the methods of a class measured: `measure` wraps each by its name."""
        if cls in self._measure:
            return
        with self._lock.lock:
            if self._measure.setdefault(cls, measure) is measure and self.subscribers:
                self._replace(cls)

    def subscribe(self, subscriber: Subscriber, around: Around | None = None) -> Callable[[], None]:
        """Call `subscriber` with each operation from now on; return a function that ends it.

        `around(operation)` returns a context manager, in which the function of a `get_or_set` runs,
        in the same thread or task: a span that begins there contains the spans of the function. The
        operation has its keys, and in `seconds` its duration until now; `notes` are for `subscriber`.

        It runs in the thread or task of the operation, after it, and delays its caller. It must be
        thread-safe. An exception in it is logged. Its own cache operations are not reported. A
        forked child has the same subscribers.
        """
        with self._lock.lock:
            first = not self.subscribers
            self.subscribers = (*self.subscribers, subscriber)
            self.arounds = (*self.arounds, *([around] if around else []))
            if first:
                for cls in self._measure:
                    self._replace(cls)
        return functools.partial(self._unsubscribe, subscriber, around)

    def _unsubscribe(self, subscriber: Subscriber, around: Around | None) -> None:
        with self._lock.lock:
            left = list(self.subscribers)
            if subscriber not in left:
                return
            left.remove(subscriber)
            self.subscribers = tuple(left)
            arounds = list(self.arounds)
            if around in arounds:
                arounds.remove(around)
            self.arounds = tuple(arounds)
            if not left:
                self._restore()

    def _restore(self) -> None:
        while self._replaced:
            cls, name, own = self._replaced.pop()
            if own is None:
                delattr(cls, name)
            else:
                setattr(cls, name, own)

    def _replace(self, cls: type) -> None:
        for name, wrap in self._measure[cls].items():
            method = getattr(cls, name, None)
            if method is None or hasattr(method, "reports_operations"):
                continue  # inherited from a class whose methods report already
            measuring: Any = wrap(method)
            measuring.reports_operations = True
            self._replaced.append((cls, name, vars(cls).get(name)))
            setattr(cls, name, measuring)


_observation = _Observation()
watch = _observation.watch
subscribe = _observation.subscribe


def is_observed() -> bool:
    """Return True if there is a subscriber."""
    return bool(_observation.subscribers)


def report(operation: Operation) -> None:
    """Call the subscribers. Their own cache operations are inside this one."""
    try:
        for subscriber in _observation.subscribers:
            try:
                subscriber(operation)
            except Exception as exc:
                if is_interruption(exc):
                    raise
                _note_failure(subscriber, exc)
    finally:
        operation.is_running = False
        operation.values = ()
        if operation.error is not None:  # its frames would be kept until the next operation
            set_current(None)


def report_alone(operation: Operation) -> None:
    """Report an operation that is not in progress, perhaps while another one is."""
    outer = get_current()
    set_current(operation)
    try:
        report(operation)
    finally:
        set_current(outer)
