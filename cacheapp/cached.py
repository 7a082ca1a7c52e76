"""`@cached`: a function whose results all workers share, computed once for each set of arguments.

A key is made of the function's module and qualified name and of its bound arguments, each by name:
the same in every process, however the arguments are given. Not in the key, so to be passed as
arguments or told apart by `key=`: what else the function reads (settings, language, database
alias). Nor is its source: a changed function goes on serving what the old one stored until that
expires; give it another `version` where that would be wrong.

Of a Django model instance only label and primary key count: `invalidate` when its row changes.
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
    """What `cached` was told."""

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
            raise ValueError(f"timeout is {timeout!r}; expected seconds above 0, or None for ever")
        if self.key is not None and not callable(self.key):
            raise TypeError(f"key is {self.key!r}; expected a function of the same arguments")
        if not 0 <= self.stale < math.inf:
            raise ValueError(f"stale is {self.stale!r}; expected a number of seconds, 0 or more")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is {self.jitter!r}; expected a part of the timeout, 0 to 1")

    def cache(self) -> SharedCache:
        """Return this thread's object for the alias."""
        return shared_cache(self.alias, "@cached")

    def times(self) -> dict[str, Any]:
        """Return what `get_or_set` and `set` are to know besides key and value."""
        return {
            "timeout": self.timeout,
            "version": self.version,
            "stale": self.stale,
            "jitter": self.jitter,
        }


class _Keys:
    """Makes the keys of one function. Immutable, so threads may share it."""

    def __init__(self, function: Callable[..., Any], own: Callable[..., str] | None) -> None:
        self._shown = f"{getattr(function, '__qualname__', function)}()"
        self._signature = _signature(function)
        self._own = own
        self._prefix = f"cached:{_prefix_name(function, own)}:"

    def make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the key for a call with these arguments; raise `TypeError` where there is none."""
        if self._own is not None:
            found = self._own(*args, **kwargs)
            if not isinstance(found, str):
                raise TypeError(f"key= of {self._shown} returned {found!r}; expected a str")
            return self._prefix + key_part(b"key=" + found.encode("utf-8", "surrogatepass"))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # By name: while a release that reorders parameters rolls out, old workers and new ones
        # share the cache.
        parts = [self._argument(name, value) for name, value in bound.arguments.items()]
        return self._prefix + key_part(b",".join(parts))

    def _argument(self, name: str, value: Any) -> bytes:
        try:
            return f"{name}=".encode() + encode(value)
        except (NotCanonical, RecursionError) as exc:
            found = exc if isinstance(exc, NotCanonical) else "something nested without end"
            raise TypeError(
                f"{self._shown} is cached, and its argument {name!r} holds {found}, for which no "
                "key is the same in all processes; pass something simpler, or pass key= to "
                "@cached: a function of the same arguments that returns a str"
            ) from exc


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the parameters. Annotations may name what is not there yet, or only for checkers."""
    if sys.version_info >= (3, 14):  # which evaluates them when it is asked
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
                "method of an importable module, or pass key= as well, which must tell apart all "
                "functions of that name"
            ) from exc
        # The one that was run as a program is another module to multiprocessing's children.
        module = "__main__" if module == "__mp_main__" else module
        return key_part(f"{module}.{name}".encode("utf-8", "surrogatepass"))


class _Function(Generic[P, R]):
    """What cached functions and coroutine functions have in common. Immutable.

    `_bound` holds the instance where it was got from one, as with any method.
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
        """Return the key in `caches[alias]` (and `version`) of a call with these arguments."""
        return self._keys.make(self._bound + args, kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete what is stored for these arguments; return whether it was there.

        Whoever is computing it stores nothing then, and whoever comes later computes anew. Call it
        after the change is committed: before that, somebody would compute the old value again.
        """
        return self._rule.cache().delete(self.key_for(*args, **kwargs), self._rule.version)

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Do what `invalidate` does."""
        key = self.key_for(*args, **kwargs)
        return await self._rule.cache().adelete(key, self._rule.version)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
        """Return the call itself; it may run later than its caller goes on (`stale`).

        Then nobody may change its arguments in between, or it would store, under the key of the
        old ones, the value of the new ones. With `key=` they may be anything, and stay as they are.
        """
        args = self._bound + args
        if self._rule.stale and self._rule.key is None:
            args, kwargs = snapshot(args), snapshot(kwargs)
        return functools.partial(self._function, *args, **kwargs)

    def _for(self, instance: object) -> Self:
        return type(self)(self._function, self._rule, self._keys, (instance,))

    def __reduce__(self) -> Any:
        """Pickle by name, as functions do; a method by its instance and name."""
        if self._bound:
            return getattr, (self._bound[0], self._function.__name__)
        return self._function.__qualname__

    def __repr__(self) -> str:
        return f"<cached {self._function!r}>"


class Cached(_Function[P, R]):
    """A function as `cached` returns it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the stored result, or compute it once for all who ask."""
        key, call = self.key_for(*args, **kwargs), self._call(args, kwargs)
        found: R = self._rule.cache().get_or_set(key, call, **self._rule.times())
        return found

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute now, whatever is stored, and store the result; return it.

        Others go on with the old value meanwhile, and keep it if the function raises. It is an
        explicit write: it takes no lease, it voids the leases of others, and the last write wins,
        also over an `invalidate` during the computation. So call it after the change that it is
        to show is committed, from one place (a periodic task); else call `invalidate`.
        """
        key = self.key_for(*args, **kwargs)
        value: R = self._call(args, kwargs)()
        self._rule.cache().set(key, value, **self._rule.times())
        return value

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: "Cached[Concatenate[Any, Q], R]", instance: object, owner: type | None = None
    ) -> "Cached[Q, R]": ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, which is the first argument then, as with any method."""
        return self if instance is None else self._for(instance)


class AsyncCached(_Function[P, R]):
    """A coroutine function as `cached` returns it. `invalidate` may be called from sync code."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        markcoroutinefunction(self)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the stored result, or compute it once for all who ask."""
        key, call = self.key_for(*args, **kwargs), self._call(args, kwargs)
        found: R = await self._rule.cache().aget_or_set(key, call, **self._rule.times())
        return found

    async def arefresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do what `Cached.refresh` does."""
        key = self.key_for(*args, **kwargs)
        value: R = await self._call(args, kwargs)()
        await self._rule.cache().aset(key, value, **self._rule.times())
        return value

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: "AsyncCached[Concatenate[Any, Q], R]", instance: object, owner: type | None = None
    ) -> "AsyncCached[Q, R]": ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, which is the first argument then, as with any method."""
        return self if instance is None else self._for(instance)


class _Decorator:
    """What `cached(...)` returns."""

    def __init__(self, rule: _Rule) -> None:
        self._rule = rule

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is one too: it goes first
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Cached[P, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Any:
        if isinstance(function, staticmethod | classmethod | property):
            kind = type(function).__name__
            raise TypeError(f"@cached stands above @{kind}; expected it directly above the def")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__}() is a generator function; what it yields cannot be "
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

    `timeout`, `stale`, `jitter`: see `SharedCache.get_or_set`. `key`: takes the same arguments and
    returns what tells calls of this function apart. Without it, arguments (a method's `self` too)
    may be `None`, `bool`, `int`, `float`, `str`, `bytes`, dates and times, `Decimal`, `UUID`, enum
    members, saved model instances, and tuples, lists, sets and dicts of these; a call with
    anything else raises `TypeError`. A lambda, or a function defined inside another one, needs
    `key`: its name does not tell it from others.

    The decorated function has `invalidate`, `ainvalidate`, `key_for`, and `refresh` (`arefresh`
    for coroutine functions), each with the same arguments; the bare one is its `__wrapped__`.
    """
    return _Decorator(_Rule(timeout, key, alias, stale, jitter, version))
