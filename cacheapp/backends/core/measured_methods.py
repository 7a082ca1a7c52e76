"""The methods that report operations: they replace those of a cache while there is a subscriber.

Each operation has a `Form`: what its arguments say before the call, and its result after it. One
wrapper runs all forms, and an async one. Only `get` is written out, because its cost counts most. Both
avoid calls of Python functions: each would be a tenth of what measuring costs.
A method that is called inside another operation only calls the original.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cacheapp.backends.core.operation import (
    Method,
    Operation,
    get_current,
    is_inside,
    new_operation,
    set_current,
)
from cacheapp.backends.core.operation_forms import FORMS, LOCK_FORMS, MISSING, Form, keyless
from cacheapp.backends.core.operations import is_observed, report, report_alone
from cacheapp.clock import stopwatch_ns


def _wrap(method: Method, form: Form) -> Method:
    name, take, note = form.name, form.take, form.note

    @functools.wraps(method)
    def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        outer = get_current()
        if outer is not None and outer.is_running:
            return method(self, *args, **kwargs)
        operation = new_operation(self, name)
        args = take(operation, args, kwargs)
        began_ns = stopwatch_ns()
        try:
            set_current(operation)
            return note(operation, method(self, *args, **kwargs))
        except BaseException as exc:
            operation.error = exc
            raise
        finally:
            operation.spent_ns = stopwatch_ns() - began_ns
            report(operation)

    return measured


def _awrap(method: Method, form: Form) -> Method:
    name, take, note = form.name, form.take, form.note

    @functools.wraps(method)
    async def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_inside():
            return await method(self, *args, **kwargs)
        operation = new_operation(self, name)
        args = take(operation, args, kwargs)
        began_ns = stopwatch_ns()
        try:
            set_current(operation)
            return note(operation, await method(self, *args, **kwargs))
        except BaseException as exc:
            operation.error = exc
            raise
        finally:
            operation.spent_ns = stopwatch_ns() - began_ns
            report(operation)

    return measured


def _wrap_get(method: Method) -> Method:
    @functools.wraps(method)
    def get(
        self: Any, key: Any, default: Any = None, version: int | None = None, **options: Any
    ) -> Any:
        outer = get_current()
        if outer is not None and outer.is_running:
            return method(self, key, default, version, **options)
        operation = Operation()  # as `new_operation`, without a call
        operation.cache = self
        operation.operation = "get"
        operation.keys = (key,)
        operation.values = ()
        operation.hits = 0
        operation.error = None
        operation.factory_seconds = operation.waited_seconds = 0.0
        operation.is_running = True
        began_ns = stopwatch_ns()
        try:
            set_current(operation)
            if options:
                value = method(self, key, MISSING, version, **options)
            else:  # unpacking no options takes as long as two readings of the clock
                value = method(self, key, MISSING, version)
            if value is MISSING:
                return default
            operation.hits = 1
            operation.values = (value,)
        except BaseException as exc:
            operation.error = exc
            raise
        else:
            return value
        finally:
            operation.spent_ns = stopwatch_ns() - began_ns
            report(operation)

    return get


def _wrap_generator(method: Method) -> Method:
    """Wrap `iter_keys`: its time is that of its steps, without that of the code that consumes it."""

    @functools.wraps(method)
    def iter_keys(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        if is_inside():
            yield from method(self, *args, **kwargs)
            return
        operation = new_operation(self, "iter_keys")
        steps = iter(method(self, *args, **kwargs))
        try:
            while True:
                began_ns = stopwatch_ns()
                set_current(operation)
                try:
                    key = next(steps, MISSING)
                finally:
                    set_current(None)
                    operation.spent_ns += stopwatch_ns() - began_ns
                if key is MISSING:
                    return
                yield key
        except Exception as exc:
            operation.error = exc
            raise
        finally:
            report_alone(operation)

    return iter_keys


def _wrappers(forms: Mapping[str, Form]) -> dict[str, Callable[[Method], Method]]:
    made: dict[str, Callable[[Method], Method]] = {}
    for name, form in forms.items():
        made[name] = functools.partial(_wrap, form=form)
        made[f"a{name}"] = functools.partial(_awrap, form=form)
    return made


CACHE_METHODS: Mapping[str, Callable[[Method], Method]] = {
    **_wrappers({form.name: form for form in FORMS}),
    "get": _wrap_get,
    "iter_keys": _wrap_generator,
}
"""What replaces each method of a cache, sync or async, by its name."""

LOCK_METHODS: Mapping[str, Callable[[Method], Method]] = _wrappers(LOCK_FORMS)
"""The same for a lock."""


def report_call(cache: Any, name: str, method: Method) -> Method:
    """Return a bound method that a cache looks up at each use, such as `sadd`: it reports if observed."""
    if not is_observed() or inspect.isgeneratorfunction(method):
        return method

    @functools.wraps(method)
    def call(_cache: Any, *args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return functools.partial(_wrap(call, keyless(name)), cache)


def areport_call(cache: Any, name: str, method: Method) -> Method:
    """Async twin of `report_call`."""
    if not is_observed():
        return method

    @functools.wraps(method)
    async def call(_cache: Any, *args: Any, **kwargs: Any) -> Any:
        return await method(*args, **kwargs)

    return functools.partial(_awrap(call, keyless(name)), cache)
