"""How each operation is read: from its arguments before the call, and from its result after it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from cacheapp.backends.core.operation import Operation
from cacheapp.backends.core.operations import Timed

MISSING = object()
"""What a read returns for a missing key while it is measured."""
_ABSENT_TTL = 0
Arguments = tuple[Any, ...]
Keywords = dict[str, Any]


def _take_no_key(operation: Operation, args: Arguments, kwargs: Keywords) -> Arguments:
    del operation, kwargs
    return args


def _take_key(operation: Operation, args: Arguments, kwargs: Keywords) -> Arguments:
    operation.keys = (args[0] if args else kwargs.get("key"),)
    return args


def _take_entry(operation: Operation, args: Arguments, kwargs: Keywords) -> Arguments:
    operation.keys = (args[0] if args else kwargs.get("key"),)
    operation.values = (args[1] if len(args) > 1 else kwargs.get("value"),)
    return args


def _take_keys(operation: Operation, args: Arguments, kwargs: Keywords) -> Arguments:
    """Note the keys, perhaps of an iterator, which the call then gets as a tuple."""
    if args:
        operation.keys = tuple(args[0])
        return (operation.keys, *args[1:])
    if "keys" in kwargs:
        operation.keys = kwargs["keys"] = tuple(kwargs["keys"])
    return args


def _take_entries(operation: Operation, args: Arguments, kwargs: Keywords) -> Arguments:
    data = args[0] if args else kwargs.get("data", {})
    operation.keys = tuple(data)
    operation.values = data.values()
    return args


def _take_default(operation: Operation, args: Arguments, kwargs: Keywords) -> Arguments:
    """Have a missing key reported by an object that no caller can have stored."""
    operation.keys = (args[0] if args else kwargs.get("key"),)
    if len(args) > 1:
        operation.default = args[1]
        return (args[0], MISSING, *args[2:])
    operation.default = kwargs.get("default")
    kwargs["default"] = MISSING
    return args


def _take_factory(operation: Operation, args: Arguments, kwargs: Keywords) -> Arguments:
    operation.keys = (args[0] if args else kwargs.get("key"),)
    operation.hits = 1  # unless a miss is noted
    operation.notes = {}
    given = args[1] if len(args) > 1 else kwargs.get("default")
    if not callable(given):
        return args
    timed = Timed(operation, given)
    if len(args) > 1:
        return (args[0], timed, *args[2:])
    kwargs["default"] = timed
    return args


def _take_lock(operation: Operation, args: Arguments, kwargs: Keywords) -> Arguments:
    del kwargs
    operation.keys = operation.cache.operation_keys
    return args


def _note_nothing(operation: Operation, result: Any) -> Any:
    del operation
    return result


def _note_value(operation: Operation, result: Any) -> Any:
    if result is MISSING:
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
    take: Callable[[Operation, Arguments, Keywords], Arguments]
    note: Callable[[Operation, Any], Any] = _note_nothing


_KEY_METHODS = (
    *("delete", "touch", "incr", "decr", "incr_version", "decr_version"),
    *("expire", "pexpire", "expire_at", "pexpire_at", "persist"),
)
FORMS = (
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
_LOCK_OPERATIONS = {
    "acquire": "lock_acquire",
    "release": "lock_release",
    "extend": "lock_extend",
    "reacquire": "lock_extend",
}
LOCK_FORMS: Mapping[str, Form] = {
    method: Form(operation, _take_lock) for method, operation in _LOCK_OPERATIONS.items()
}


def keyless(name: str) -> Form:
    """Return the form of a method whose arguments are not read."""
    return Form(name, _take_no_key)
