"""Decide whether a body that could not be decoded is foreign, or its reader is in trouble.

A body is foreign if its format is violated, or if it names a class that no longer exists. Anything
else may be temporary or concern only this process: apps that are not loaded yet, a package that is
not installed here, too little memory, an exception of a class's own code or of a signal handler.

The decision is made by a second pass, which runs no code of any class. A violation of the format
causes the same error again.
"""

import importlib
import io
import json
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgpack

from cacheapp.backends.local.interruptions import raised_by_handler

_READER_ERRORS = (
    pickle.UnpicklingError,
    msgpack.UnpackException,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OverflowError,
    TypeError,
    ValueError,
)


class _ClassGone(Exception):
    """The body names a class that no longer exists."""


def reason_to_reject(serializer: str, body: Any, error: Exception) -> str | None:
    """Return what makes the body foreign, after `error` was raised while it was decoded; or `None`."""
    if not isinstance(error, _READER_ERRORS) or raised_by_handler(error) is not None:
        return None
    try:
        _EXAMINERS[serializer](body)
    except _ClassGone as exc:
        return str(exc)
    except _READER_ERRORS as exc:
        if raised_by_handler(exc) is not None:
            raise
        same = type(exc) is type(error) and str(exc) == str(error)
        return f"{type(exc).__name__}: {exc}" if same and not _depends_on_process(exc) else None
    return None


def _depends_on_process(error: Exception) -> bool:
    """Return True if another process may read the same bytes without this error."""
    return isinstance(error, ImportError) or str(error).startswith(
        (
            "Exceeds the limit",  # `sys.set_int_max_str_digits`
            "unregistered extension code",  # `copyreg.add_extension`
        )
    )


# -- JSON and msgpack: these run no code of classes ----------------------------------------------


def _examine_json(body: Any) -> None:
    json.loads(bytes(body))


def _examine_msgpack(body: Any) -> None:
    msgpack.unpackb(body, strict_map_key=False)


# -- pickle --------------------------------------------------------------------------------------


class _InertType(type):
    """The type of `_Inert`: calls and assignments to items do nothing."""

    def __call__(cls, *_args: Any, **_kwargs: Any) -> Any:
        return cls

    def __setitem__(cls, key: Any, value: Any) -> None:
        pass


class _Inert(metaclass=_InertType):
    """Takes the place of every class, function and instance in a pickle, and does nothing."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        return cls

    @staticmethod
    def _ignore(_value: Any) -> None:
        pass

    append = extend = add = __setstate__ = _ignore


class _Examiner(pickle.Unpickler):
    """Reads a pickle without running any code but imports."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return `_Inert`; raise `_ClassGone`."""
        _require(module_name, global_name)
        return _Inert


def _examine_pickle(body: Any) -> None:
    _Examiner(io.BytesIO(body)).load()


def _require(module_name: str, name: str) -> None:
    """Import the module; raise `_ClassGone` if it, or the name in it, certainly does not exist."""
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        package = sys.modules.get(missing.rpartition(".")[0])
        if f"{module_name}.".startswith(f"{missing}.") and _is_complete(package):
            raise _ClassGone(f"the module {missing} no longer exists") from exc
        raise  # a package that this process lacks, or an import inside the module
    if not _is_complete(module):
        return
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            if raised_by_handler(exc) is not None:
                raise
            raise _ClassGone(f"{module_name}.{name} no longer exists") from exc


def _is_complete(module: ModuleType | None) -> bool:
    """Return True if all of a module was imported from one known file.

    A namespace package may have further parts elsewhere. The main module of another program is not
    this one.
    """
    spec = getattr(module, "__spec__", None)
    return (
        spec is not None
        and spec.origin is not None
        and getattr(module, "__name__", "") not in {"__main__", "__mp_main__"}
        and not getattr(spec, "_initializing", False)
    )


_EXAMINERS: dict[str, Callable[[Any], None]] = {
    "pickle": _examine_pickle,
    "json": _examine_json,
    "msgpack": _examine_msgpack,
}
