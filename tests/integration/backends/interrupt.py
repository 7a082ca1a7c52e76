"""Raise an exception in the backends' own code, wherever a signal handler can raise one.

CPython runs signal handlers after a call, at the entry of a function and at a backward jump; and
calls that wait (for a lock, a socket) raise what a handler raised. An exception of a trace function
is raised *before* an instruction, so it stands for a handler's where both are caught by the same
`except` or `finally`.
"""

import dis
import functools
import sys
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

_WAITING = ("CALL", "BEFORE_WITH")  # they may raise what a handler raised
_CHECKED = ("CALL", "RESUME", "JUMP_BACKWARD")  # after them, handlers run
_VISITS = 2  # of one place in one run: a loop over many things is the same again and again
_PART = "cacheapp/backends"


class Interrupted(Exception):
    """What the handler raised."""


@functools.cache
def _places(code: CodeType) -> frozenset[int]:
    """Return the offsets of a function's instructions before which a handler may raise."""
    found = set()
    instructions = list(dis.get_instructions(code))
    for index, instruction in enumerate(instructions):
        before = instructions[index - 1] if index else None
        waits = instruction.opname.startswith(_WAITING) and not _ends_with(instructions[:index])
        if waits or (
            before is not None
            and before.opname.startswith(_CHECKED)
            and _handler(code, before.offset) == _handler(code, instruction.offset)
        ):
            found.add(instruction.offset)
    return frozenset(found)


def _ends_with(instructions: list[dis.Instruction]) -> bool:
    """Return True if the next call is the normal end of a `with`, which for a lock never waits."""
    arguments = [each for each in instructions[-4:] if each.opname != "PRECALL"][-3:]
    return all(each.opname == "LOAD_CONST" and each.argval is None for each in arguments)


@functools.cache
def _handler(code: CodeType, offset: int) -> int | None:
    """Return where an exception raised at an offset is handled."""
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]  # noqa: SLF001
    return next((entry.target for entry in entries if entry.start <= offset < entry.end), None)


def interrupted_at(number: int, work: Callable[[], object], place: list[str]) -> bool:
    """Run `work`, and raise at the place of this number; return False if there are fewer.

    `place` becomes the function and the line.
    """
    count = 0
    visits: Counter[tuple[CodeType, int]] = Counter()

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        if _PART not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _places(frame.f_code):
            visit = frame.f_code, frame.f_lasti
            visits[visit] += 1
            count += visits[visit] <= _VISITS
            if count == number:
                sys.settrace(None)
                place[:] = [f"{frame.f_code.co_qualname}, line {frame.f_lineno}"]
                raise Interrupted
        return trace

    sys.settrace(trace)
    try:
        work()
    except Interrupted:
        return True
    finally:
        sys.settrace(None)
    return count >= number
