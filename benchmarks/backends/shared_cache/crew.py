"""Processes that each do a piece of work, all at the same moment, and send back what they found."""

import contextlib
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

from benchmarks.measuring import set_up_django
from benchmarks.measuring.processes import context

_LATE_S = 1200.0
Work = tuple[Any, ...]
"""A function of a module, and its arguments."""


class Crew:
    """So many processes with Django set up; each keeps its caches from one work to the next."""

    def __init__(self, count: int) -> None:
        self._barrier = context.Barrier(count)
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._barrier), daemon=True)
            process.start()
            theirs.close()  # so that the end of the process ends our `recv`
            self._pipes.append(ours)
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """The process ids, in the order of the work."""
        return [process.pid or 0 for process in self._processes]

    def together(self, work: Callable[..., Any], *args: Any) -> list[Any]:
        """Let all begin the same work at the same moment; return what each found."""
        return self.each([(work, *args)] * len(self._pipes))

    def each(self, works: Sequence[Work]) -> list[Any]:
        """Let each begin its own work at the same moment; return what each found."""
        for pipe, work in zip(self._pipes, works, strict=True):
            pipe.send(work)
        return [self._answer(pipe) for pipe in self._pipes]

    def _answer(self, pipe: Connection) -> Any:
        if not pipe.poll(_LATE_S):
            raise TimeoutError(f"a process of the crew gave no answer for {_LATE_S:g} s")
        try:
            found, error = pipe.recv()
        except EOFError:
            raise RuntimeError("a process of the crew ended in the middle of its work") from None
        if error:
            raise RuntimeError(f"a process of the crew failed:\n{error}")
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            process.kill()
            process.join()


def _serve(pipe: Connection, barrier: Any) -> None:
    """Work until the pipe ends, which it does with whoever made the crew."""
    set_up_django()
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            work, *args = pipe.recv()
            barrier.wait(_LATE_S)
            try:
                pipe.send((work(*args), ""))
            except Exception:  # noqa: BLE001 (it is raised where it was asked for)
                pipe.send((None, traceback.format_exc()))
