"""Interrupt an operation at each of its bytecodes in turn, and check that the cache stays sound.

A signal handler may raise wherever the interpreter looks for signals. A trace function finds those
places, and more, one after the other.
"""

import dis
import functools
import gc
import os
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, Self

from cacheapp.backends.core.step_runner import holds_lease

_ACK = struct.Struct("q")
LEFT_HELD_S = 100.0
"""How long a store waits at least for a lock that was left held."""
_WITHIN_S = 50.0
_HANG_S = 150.0
_NEVER_RAISING = frozenset(
    ["COPY", "NOP", "NOT_TAKEN", "POP_EXCEPT", "PUSH_EXC_INFO", "RETURN_CONST", "RETURN_VALUE"]
)


class Interrupted(BaseException):
    """What the trace function raises in place of a signal handler."""


@functools.cache
def _uninterruptible(code: CodeType) -> frozenset[int]:
    """Return the offsets at which nothing ever raises, and the compiler relies on that.

    From the end of a `with` block to the call of `__exit__` the interpreter looks for no signal; a
    trace function could raise there all the same, and then `__exit__` would not be called. The same
    is true of what begins a `try` in such a block, follows a branch in it, or returns from it, and of
    the begin and end of an `except`: there, the handled exception would stay that of its thread for ever.
    """
    skipped: set[int] = set()
    found = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
    for start, instruction in enumerate(found):
        at = start
        names = [each.opname for each in found[at : at + 5]]
        if names[:3] == ["LOAD_CONST"] * 3 and any(each.startswith("CALL") for each in names[3:]):
            if [each.argval for each in found[at : at + 3]] == [None] * 3:
                skipped.update(each.offset for each in found[at : at + 5])
                while found[at - 1].opname == "SWAP":  # below the result of a `return`
                    at -= 1
                    skipped.add(found[at].offset)
        elif (
            "WITH_EXCEPT_START" in names[:2]
            or instruction.opname in _NEVER_RAISING
            or names[:2] == ["LOAD_CONST", "RETURN_VALUE"]
        ):
            skipped.add(instruction.offset)
    return frozenset(skipped)


def _interrupt() -> None:
    raise Interrupted


def interrupt_at(
    number: int,
    operation: Callable[[], object],
    interrupt: Callable[[], object] = _interrupt,
    *,
    within: str = "",
) -> bool:
    """Call `interrupt` before the bytecode of this number; return False if there are fewer.

    Only those of files whose path contains `within` count. The garbage collector does not run
    meanwhile: what is raised in a callback of `gc.callbacks`, such as that of hypothesis, is lost.
    """
    left = number

    def trace_opcode(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        if event == "opcode" and frame.f_lasti not in _uninterruptible(frame.f_code):
            left -= 1
            if left == 0:
                interrupt()
        return trace_opcode

    def trace(frame: FrameType, _event: str, _arg: object) -> Any:
        if within not in frame.f_code.co_filename:
            return None
        frame.f_trace = trace_opcode  # from Python 3.13 on, `f_trace_opcodes` has no effect before
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return trace_opcode

    before, collects, handled = sys.gettrace(), gc.isenabled(), sys.exception()
    gc.disable()
    # Python 3.12 traces bytecodes only if a frame has asked for them before `settrace`.
    sys._getframe().f_trace_opcodes = True  # noqa: SLF001 (documented)
    sys.settrace(trace)
    try:
        operation()
    except Interrupted:
        pass
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    assert sys.exception() is handled, (
        "an exception stays in this thread, with all that it refers to"
    )
    assert not holds_lease(), "a mark stays in this thread, whose callers would never wait again"
    return left <= 0


class Bystanders:
    """Another thread and another process, which increment counters of their own."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._counts = 0
        cache.set_many({"by-thread": 0, "by-process": 0}, timeout=None)
        requests, replies = os.pipe(), os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(requests[1])
            self._serve(requests[0], replies[1])
        os.close(requests[0])
        os.close(replies[1])
        self._to_process, self._from_process = requests[1], replies[0]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _serve(self, requests: int, replies: int) -> None:
        try:
            while os.read(requests, 1) == b"x":
                os.write(replies, _ACK.pack(self._cache.incr("by-process")))
        finally:
            os._exit(0)

    def _run(self) -> None:
        while self._requests.get():
            try:
                self._replies.put(self._cache.incr("by-thread"))
            except Exception as exc:  # noqa: BLE001 (compared by the test's thread)
                self._replies.put(exc)

    def check(self) -> None:
        """Check that both can write at once, and that no write of theirs was lost."""
        self._counts += 1
        began_s = time.monotonic()
        self._requests.put(True)  # noqa: FBT003
        os.write(self._to_process, b"x")
        reply = self._replies.get(timeout=_HANG_S)
        if isinstance(reply, Exception):
            raise reply
        assert reply == self._counts
        assert _ACK.unpack(os.read(self._from_process, _ACK.size)) == (self._counts,)
        took_s = time.monotonic() - began_s
        assert took_s < _WITHIN_S, f"the others could not write for {took_s:.1f} s"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._requests.put(False)  # noqa: FBT003
        os.close(self._to_process)
        os.waitpid(self._pid, 0)
        os.close(self._from_process)
        self._thread.join(_HANG_S)


def interrupt_everywhere(
    cache: Any,
    operation: Callable[[], object],
    check: Callable[[], None],
    *,
    step: int = 1,
    within: str = "",
    prepare: Callable[[], object] = lambda: None,
) -> int:
    """Interrupt the operation at every `step`-th bytecode, and check after each; return how many.

    Only bytecodes of files whose path contains `within` count.
    `check` is called in this thread after another thread and another process have written. The
    exception is kept until then, with all that its traceback refers to, as a logger may keep it.
    """
    kept: list[Interrupted] = []

    def interrupt() -> None:
        kept.append(Interrupted())
        raise kept[0]

    with Bystanders(cache) as bystanders:
        for count, number in enumerate(range(1, 1_000_000, step)):
            prepare()
            kept.clear()
            if not interrupt_at(number, operation, interrupt, within=within):
                return count
            try:
                bystanders.check()
                check()
            except BaseException as exc:
                exc.add_note(f"after an interruption before bytecode {number}")
                raise
    raise AssertionError("the operation did not end")


@contextmanager
def finalised_everywhere(use: Callable[[], object]) -> Iterator[None]:
    """Call `use` before each bytecode of the block, as a finaliser would be that runs there."""
    inside = False

    def trace_opcode(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal inside
        if event == "opcode" and not inside:
            inside = True
            try:
                use()
            finally:
                inside = False
        return trace_opcode

    def trace(frame: FrameType, _event: str, _arg: object) -> Any:
        frame.f_trace = trace_opcode  # from Python 3.13 on, `f_trace_opcodes` has no effect before
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return trace_opcode

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
