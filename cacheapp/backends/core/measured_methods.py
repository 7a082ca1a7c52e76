"""The methods that report operations: they replace those of a cache while there is a subscriber.

Each operation has a `Form`: what its arguments say before the call, and its result after it. One
wrapper runs all forms, and an async one. Only `get` is written out, because its cost counts most.
A method that is called inside another operation only calls the original.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cacheapp.backends.core.operations import (
    Method,
    Operation,
    Timed,
    get_current,
    is_inside,
    is_observed,
    measuring,
    new_operation,
    report,
    report_alone,
    set_current,
)
from cacheapp.clock import stopwatch_s

_MISSING = object()
_ABSENT_TTL = 0
Arguments = list[Any]
Keywords = dict[str, Any]


def _take_no_key(operation: Operation, args: Arguments, kwargs: Keywords) -> None:
    del operation, args, kwargs


def _take_key(operation: Operation, args: Arguments, kwargs: Keywords) -> None:
    operation.keys = (args[0] if args else kwargs["key"],)


def _take_entry(operation: Operation, args: Arguments, kwargs: Keywords) -> None:
    _take_key(operation, args, kwargs)
    operation.values = (args[1] if len(args) > 1 else kwargs["value"],)


def _take_keys(operation: Operation, args: Arguments, kwargs: Keywords) -> None:
    """Note the keys, perhaps of an iterator, which the call then gets as a tuple."""
    operation.keys = tuple(args[0] if args else kwargs["keys"])
    if args:
        args[0] = operation.keys
    else:
        kwargs["keys"] = operation.keys


def _take_entries(operation: Operation, args: Arguments, kwargs: Keywords) -> None:
    data = args[0] if args else kwargs["data"]
    operation.keys = tuple(data)
    operation.values = data.values()


def _take_default(operation: Operation, args: Arguments, kwargs: Keywords) -> None:
    """Have a missing key reported by an object that no caller can have stored."""
    _take_key(operation, args, kwargs)
    if len(args) > 1:
        operation.default, args[1] = args[1], _MISSING
    else:
        operation.default = kwargs.get("default")
        kwargs["default"] = _MISSING


def _take_factory(operation: Operation, args: Arguments, kwargs: Keywords) -> None:
    _take_key(operation, args, kwargs)
    operation.hits = 1  # unless a miss is noted
    given = args[1] if len(args) > 1 else kwargs["default"]
    if callable(given):
        timed = Timed(operation, given)
        if len(args) > 1:
            args[1] = timed
        else:
            kwargs["default"] = timed


def _take_lock(operation: Operation, args: Arguments, kwargs: Keywords) -> None:
    del args, kwargs
    operation.keys = operation.cache.operation_keys


def _note_nothing(operation: Operation, result: Any) -> Any:
    del operation
    return result


def _note_value(operation: Operation, result: Any) -> Any:
    if result is _MISSING:
        operation.hits = 0
        return operation.default
    if operation.hits is None:
        operation.hits = 1
    operation.values = (result,)
    return result


def _note_presence(operation: Operation, result: Any) -> Any:
    operation.hits = int(result)
    return result


def _note_ttl(operation: Operation, result: Any) -> Any:
    operation.hits = int(result != _ABSENT_TTL)
    return result


def _note_found(operation: Operation, result: Any) -> Any:
    operation.hits = len(result)
    operation.values = result.values()
    return result


@dataclasses.dataclass(frozen=True)
class Form:
    """How an operation is read: from its arguments, which may be replaced, and from its result."""

    name: str
    take: Callable[[Operation, Arguments, Keywords], None]
    note: Callable[[Operation, Any], Any] = _note_nothing

    def begin(self, cache: Any, args: Arguments, kwargs: Keywords) -> Operation:
        """Return the operation that these arguments describe."""
        operation = new_operation(cache, self.name)
        self.take(operation, args, kwargs)
        return operation


def _wrap(method: Method, form: Form) -> Method:
    @functools.wraps(method)
    def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_inside():
            return method(self, *args, **kwargs)
        given = list(args)
        with measuring(form.begin(self, given, kwargs)) as operation:
            return form.note(operation, method(self, *given, **kwargs))

    return measured


def _awrap(method: Method, form: Form) -> Method:
    @functools.wraps(method)
    async def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_inside():
            return await method(self, *args, **kwargs)
        given = list(args)
        with measuring(form.begin(self, given, kwargs)) as operation:
            return form.note(operation, await method(self, *given, **kwargs))

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
        began = stopwatch_s()
        try:
            set_current(operation)
            if options:
                value = method(self, key, _MISSING, version, **options)
            else:  # unpacking no options takes as long as two readings of the clock
                value = method(self, key, _MISSING, version)
            if value is _MISSING:
                return default
            operation.hits = 1
            operation.values = (value,)
        except BaseException as exc:
            operation.error = exc
            raise
        else:
            return value
        finally:
            operation.seconds = stopwatch_s() - began
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
        spent_s = 0.0
        try:
            while True:
                began = stopwatch_s()
                set_current(operation)
                try:
                    key = next(steps, _MISSING)
                finally:
                    set_current(None)
                    spent_s += stopwatch_s() - began
                if key is _MISSING:
                    return
                yield key
        except Exception as exc:
            operation.error = exc
            raise
        finally:
            operation.seconds = spent_s
            report_alone(operation)

    return iter_keys


_KEY_METHODS = (
    *("delete", "touch", "incr", "decr", "incr_version", "decr_version"),
    *("expire", "pexpire", "expire_at", "pexpire_at", "persist"),
)
_FORMS = (
    Form("get", _take_default, _note_value),
    Form("get_or_set", _take_factory, _note_value),
    Form("set", _take_entry),
    Form("add", _take_entry),
    Form("has_key", _take_key, _note_presence),
    Form("ttl", _take_key, _note_ttl),
    Form("pttl", _take_key, _note_ttl),
    *(Form(name, _take_key) for name in _KEY_METHODS),
    Form("get_many", _take_keys, _note_found),
    Form("delete_many", _take_keys),
    Form("set_many", _take_entries),
    *(Form(name, _take_no_key) for name in ("clear", "keys", "delete_pattern", "evict")),
)
_LOCK_FORMS = {
    "acquire": "lock_acquire",
    "release": "lock_release",
    "extend": "lock_extend",
    "reacquire": "lock_extend",
}


def _wrappers(forms: Mapping[str, Form]) -> dict[str, Callable[[Method], Method]]:
    made: dict[str, Callable[[Method], Method]] = {}
    for name, form in forms.items():
        made[name] = functools.partial(_wrap, form=form)
        made[f"a{name}"] = functools.partial(_awrap, form=form)
    return made


CACHE_METHODS: Mapping[str, Callable[[Method], Method]] = {
    **_wrappers({form.name: form for form in _FORMS}),
    "get": _wrap_get,
    "iter_keys": _wrap_generator,
}
"""What replaces each method of a cache, sync or async, by its name."""

LOCK_METHODS: Mapping[str, Callable[[Method], Method]] = _wrappers(
    {name: Form(operation, _take_lock) for name, operation in _LOCK_FORMS.items()}
)
"""The same for a lock."""


def report_call(cache: Any, name: str, method: Method) -> Method:
    """Return a bound method that a cache looks up at each use, such as `sadd`: it reports if observed."""
    if not is_observed() or inspect.isgeneratorfunction(method):
        return method

    @functools.wraps(method)
    def call(_cache: Any, *args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return functools.partial(_wrap(call, Form(name, _take_no_key)), cache)


def areport_call(cache: Any, name: str, method: Method) -> Method:
    """Async twin of `report_call`."""
    if not is_observed():
        return method

    @functools.wraps(method)
    async def call(_cache: Any, *args: Any, **kwargs: Any) -> Any:
        return await method(*args, **kwargs)

    return functools.partial(_awrap(call, Form(name, _take_no_key)), cache)
