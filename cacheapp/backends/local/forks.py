"""Fork hooks that also run where C code forked, and Python's own hooks did not.

`os.fork` runs the hooks of `register` as `os.register_at_fork` would. A server that forks in C
(uWSGI without `lazy-apps`) runs none of them, or only those for the child. So a page of memory that
the kernel clears in every child (`MADV_WIPEONFORK`, Linux 4.14) holds a mark: a store that finds no
mark at the start of an operation calls `recover`, which runs the hooks for the child.

A hook for the child must not rely on the one before the fork: it replaces locks, where another hook
would release them. Locks that other threads held at a fork in C stay in an unknown state otherwise.
"""

import mmap
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from cacheapp.backends.local.interruptions import suppress_failure
from cacheapp.thread_lock import reentrant_lock

_WIPE_ON_FORK = 18  # MADV_WIPEONFORK, which the mmap module does not name
_MARK = 1.0


def wiped_page() -> "memoryview[float]":
    """Return a float array that is all zeros in a forked child; an ordinary one on other systems."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress_failure(OSError, AttributeError):
        page.madvise(_WIPE_ON_FORK)
    return memoryview(page).cast("d")


class _Forks:
    """The hooks of this process, in the order of their registration."""

    def __init__(self) -> None:
        self.mark = wiped_page()
        self.mark[0] = _MARK
        self._before: list[Callable[[], None]] = []
        self._in_parent: list[Callable[[], None]] = []
        self._in_child: list[Callable[[], None]] = []
        self._recovery: dict[int, AbstractContextManager[Any]] = {}

    def register(
        self,
        *,
        before: Callable[[], None] | None = None,
        in_parent: Callable[[], None] | None = None,
        in_child: Callable[[], None] | None = None,
    ) -> None:
        """Run these at every fork: before it, and after it in the parent and the child."""
        for hooks, hook in (
            (self._before, before),
            (self._in_parent, in_parent),
            (self._in_child, in_child),
        ):
            if hook is not None:
                hooks.append(hook)

    def before(self) -> None:
        if not self.mark[0]:  # a child of C code forks again, before it used anything
            self.recover()
        run_all(self._before[::-1])

    def in_parent(self) -> None:
        run_all(self._in_parent)

    def in_child(self) -> None:
        try:
            run_all(self._in_child)
        finally:
            self.mark[0] = _MARK

    def recover(self) -> None:
        """Run the hooks for the child, once: this process was forked by C code."""
        # A lock of this process alone: those of the parent may be held by threads that are not here.
        with self._recovery.setdefault(os.getpid(), reentrant_lock()):
            if not self.mark[0]:
                self.in_child()


def run_all(hooks: Sequence[Callable[[], None]]) -> None:
    """Run every hook; raise the last exception of a signal handler when all have run.

    Python forks even if a hook raises, so each object must be ready.
    """
    interruption: BaseException | None = None
    for hook in hooks:
        try:
            hook()
        except BaseException as exc:  # noqa: BLE001 (raised below)
            interruption = exc
    if interruption is not None:
        raise interruption


class ForkLock:
    """A reentrant lock that no other thread holds during a fork; the child gets a new one.

    Use `with fork_lock.lock`: the interpreter enters and leaves that without a gap in which a signal
    handler could raise. It is reentrant because a signal handler may fork inside it.
    """

    def __init__(self) -> None:
        self.lock = reentrant_lock()
        self._held = (
            0  # by forks in progress; more than one if a signal handler forks during a fork
        )

    def before(self) -> None:
        """Acquire it for a fork; raise what a signal handler raised only when that is done."""
        interruption: BaseException | None = None
        owned: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001
        was_owned = owned()
        while True:
            try:
                self.lock.acquire()
                break
            except BaseException as exc:  # noqa: BLE001 (raised below)
                interruption = exc
                if owned() and not was_owned:
                    break
        self._held += 1
        if interruption is not None:
            raise interruption

    def in_parent(self) -> None:
        """Release it after a fork."""
        if self._held:  # not in a child that a signal handler forked during this fork
            self._held -= 1
            self.lock.release()

    def in_child(self) -> None:
        """Replace it."""
        self.lock = reentrant_lock()
        self._held = 0


_forks = _Forks()
register = _forks.register
recover = _forks.recover
mark = _forks.mark
"""`mark[0]` is 0 in a process that C code forked, until `recover` has run."""
os.register_at_fork(
    before=_forks.before,
    after_in_parent=_forks.in_parent,
    after_in_child=_forks.in_child,
)
