"""`@cached`: stores a function's results for all workers, computed once per set of arguments.

A key consists of the function's module and qualified name and of its bound arguments, each by name,
so it is the same in every process, whether arguments are positional or not. Anything else that the
function reads (settings, language, database alias) is not part of the key: pass it as an argument,
or use `key=`. The source is not part of it either: a changed function serves the results of the old
one until they expire; give it another `version` if they would be wrong.

The key of a Django model instance is its label and primary key: call `invalidate` when its row
changes.
"""

import dataclasses
import functools
import inspect
import math
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from cacheapp.backends.core.by_alias import shared_cache
from cacheapp.backends.core.shared import SharedCache
from cacheapp.canonical import NotCanonical, encode, key_part, name_of, snapshot

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class _Rule:
    """The arguments of `cached`."""

    timeout: float | None
    key: Callable[..., str] | None
    alias: str
    stale: float
    jitter: float
    version: int | None

    def __post_init__(self) -> None:
        timeout = self.timeout
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if timeout is not None and not (number and timeout > 0):
            raise ValueError(
                f"timeout is {timeout!r}; expected seconds above 0, or None for no deadline"
            )
        if self.key is not None and not callable(self.key):
            raise TypeError(f"key is {self.key!r}; expected a function of the same arguments")
        if not 0 <= self.stale < math.inf:
            raise ValueError(f"stale is {self.stale!r}; expected a number of seconds, 0 or more")
        if not 0 <= self.jitter <= 1:
            raise ValueError(
                f"jitter is {self.jitter!r}; expected a fraction of the timeout, 0 to 1"
            )

    def cache(self) -> SharedCache:
        """Return this thread's object for the alias."""
        return shared_cache(self.alias, "@cached")

    def cache_options(self) -> dict[str, Any]:
        """Return the arguments of `get_or_set` and `set` other than key and value."""
        return {
            "timeout": self.timeout,
            "version": self.version,
            "stale": self.stale,
            "jitter": self.jitter,
        }


class _Keys:
    """Makes the keys of one function. Immutable, so threads may share it."""

    def __init__(self, function: Callable[..., Any], own: Callable[..., str] | None) -> None:
        self._label = f"{getattr(function, '__qualname__', function)}()"
        self._signature = _signature(function)
        self._own = own
        self._prefix = f"cached:{_prefix_name(function, own)}:"

    def make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the key of a call with these arguments; raise `TypeError` if it has none."""
        if self._own is not None:
            found = self._own(*args, **kwargs)
            if not isinstance(found, str):
                raise TypeError(f"key= of {self._label} returned {found!r}; expected a str")
            return self._prefix + key_part(b"key=" + found.encode("utf-8", "surrogatepass"))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # By name: while a release that reorders parameters is deployed, old and new workers share
        # the cache.
        parts = [self._argument(name, value) for name, value in bound.arguments.items()]
        return self._prefix + key_part(b",".join(parts))

    def _argument(self, name: str, value: Any) -> bytes:
        try:
            return f"{name}=".encode() + encode(value)
        except (NotCanonical, RecursionError) as exc:
            found = exc if isinstance(exc, NotCanonical) else "a value that is nested too deeply"
            raise TypeError(
                f"{self._label} is cached, and its argument {name!r} holds {found}, for which no "
                "key is the same in all processes; pass a value of a simpler type, or pass key= to "
                "@cached: a function of the same arguments that returns a str"
            ) from exc


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature. Annotations may contain names that are not defined at run time."""
    if sys.version_info >= (3, 14):  # which evaluates annotations lazily
        from annotationlib import Format  # noqa: PLC0415

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _prefix_name(function: Callable[..., Any], own: Callable[..., str] | None) -> str:
    try:
        return name_of(function)
    except ValueError as exc:
        module, name = (getattr(function, each, None) for each in ("__module__", "__qualname__"))
        if own is None or not isinstance(name, str):
            raise TypeError(
                f"@cached cannot name this function in keys: it is {exc}; make it a function or "
                "method of an importable module, or pass key=, which must return different keys "
                "for all functions of that name"
            ) from exc
        # multiprocessing's children know the main module by the other name.
        module = "__main__" if module == "__mp_main__" else module
        return key_part(f"{module}.{name}".encode("utf-8", "surrogatepass"))


class _Function(Generic[P, R]):
    """The common part of cached functions and coroutine functions. Immutable.

    `_bound` contains the instance if this is a bound method.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        rule: _Rule,
        keys: _Keys,
        bound: tuple[Any, ...] = (),
    ) -> None:
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # an object, not a def
        self._function = function
        self._rule = rule
        self._keys = keys
        self._bound = bound

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call with these arguments, in `caches[alias]` and `version`."""
        return self._keys.make(self._bound + args, kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the result for these arguments; return True if it existed.

        A computation in progress does not store its result, and later calls compute it again. Call
        this after the change is committed: before that, another call would compute the old value.
        """
        return self._rule.cache().delete(self.key_for(*args, **kwargs), self._rule.version)

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Async twin of `invalidate`."""
        key = self.key_for(*args, **kwargs)
        return await self._rule.cache().adelete(key, self._rule.version)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
        """Return the call itself. With `stale` it may run in the background, after this returns.

        Mutable arguments are then copied: if the caller changed them in between, the value of the
        new arguments would be stored under the key of the old ones. With `key=`, arguments may be
        of any type, and are not copied.
        """
        args = self._bound + args
        if self._rule.stale and self._rule.key is None:
            args, kwargs = snapshot(args), snapshot(kwargs)
        return functools.partial(self._function, *args, **kwargs)

    def _bind(self, instance: object) -> Self:
        return type(self)(self._function, self._rule, self._keys, (instance,))

    def __reduce__(self) -> Any:
        """Pickle by name, as for functions; a bound method by its instance and name."""
        if self._bound:
            return getattr, (self._bound[0], self._function.__name__)
        return self._function.__qualname__

    def __repr__(self) -> str:
        return f"<cached {self._function!r}>"


class Cached(_Function[P, R]):
    """A cached function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the stored result, or compute it once for all concurrent callers."""
        key, call = self.key_for(*args, **kwargs), self._call(args, kwargs)
        result: R = self._rule.cache().get_or_set(key, call, **self._rule.cache_options())
        return result

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute the result even if one is stored; store and return it.

        Other calls return the old value until then, and still do if the function raises. This is
        an explicit write: it takes no lease and voids those of other callers, and the last write
        wins, even over an `invalidate` during the computation. Therefore call it after the change
        is committed, and from one place (a periodic task); otherwise call `invalidate`.
        """
        key = self.key_for(*args, **kwargs)
        value: R = self._call(args, kwargs)()
        self._rule.cache().set(key, value, **self._rule.cache_options())
        return value

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: "Cached[Concatenate[Any, Q], R]", instance: object, owner: type | None = None
    ) -> "Cached[Q, R]": ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, which becomes the first argument, as for any method."""
        return self if instance is None else self._bind(instance)


class AsyncCached(_Function[P, R]):
    """A cached coroutine function. `invalidate` may be called from sync code."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        markcoroutinefunction(self)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the stored result, or compute it once for all concurrent callers."""
        key, call = self.key_for(*args, **kwargs), self._call(args, kwargs)
        result: R = await self._rule.cache().aget_or_set(key, call, **self._rule.cache_options())
        return result

    async def arefresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Async twin of `Cached.refresh`."""
        key = self.key_for(*args, **kwargs)
        value: R = await self._call(args, kwargs)()
        await self._rule.cache().aset(key, value, **self._rule.cache_options())
        return value

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: "AsyncCached[Concatenate[Any, Q], R]", instance: object, owner: type | None = None
    ) -> "AsyncCached[Q, R]": ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, which becomes the first argument, as for any method."""
        return self if instance is None else self._bind(instance)


class _Decorator:
    """The decorator that `cached(...)` returns."""

    def __init__(self, rule: _Rule) -> None:
        self._rule = rule

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is a function too: its overload is first
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Cached[P, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Any:
        if isinstance(function, staticmethod | classmethod | property):
            kind = type(function).__name__
            raise TypeError(f"@cached is above @{kind}; expected it directly above the def")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__}() is a generator function, whose items cannot be "
                "stored; return a list"
            )
        made = AsyncCached if iscoroutinefunction(function) else Cached
        return made(function, self._rule, _Keys(function, self._rule.key))


def cached(
    timeout: float | None,
    *,
    key: Callable[..., str] | None = None,
    alias: str = "default",
    stale: float = 0,
    jitter: float = 0,
    version: int | None = None,
) -> _Decorator:
    """Cache the results of a function, method or coroutine function; `None` is a result.

    `timeout`, `stale`, `jitter`: see `SharedCache.get_or_set`. `key`: a function of the same
    arguments that returns a different str for each call that must be cached separately. Without
    it, arguments (and a method's `self`) may be `None`, `bool`, `int`, `float`, `str`, `bytes`,
    dates and times, `Decimal`, `UUID`, enum members, saved model instances, and tuples, lists, sets
    and dicts of these; a call with any other argument raises `TypeError`. A lambda, or a function
    defined inside another one, requires `key`, because its name is not unique.

    The decorated function has `invalidate`, `ainvalidate`, `key_for`, and `refresh` (`arefresh`
    for coroutine functions), each with the same arguments; `__wrapped__` is the original function.
    """
    return _Decorator(_Rule(timeout, key, alias, stale, jitter, version))
