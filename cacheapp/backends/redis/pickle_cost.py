"""What it costs to load a pickle that anyone may have made, known before it is loaded."""

import pickletools
from typing import Any

_GETS = frozenset(["GET", "BINGET", "LONG_BINGET"])
_PUTS = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_TUPLES = frozenset(["TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"])
_FILLS = frozenset(["APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"])
_MARK = 0


class Hashing:
    """Counts the items that the hashes of a pickle's values visit beyond what the pickle contains.

    A pickle can name a value again, and the hash of a tuple visits its items at each place: thirty
    tuples, each of the one before twice, are a thousand million items.
    """

    def __init__(self) -> None:
        self.repeated = 0
        """Items of tuples that were named again."""
        self._stack: list[int] = []  # the items of each value, as far as its hash visits them
        self._memo: dict[int, int] = {}

    def follow(self, opcode: Any, arg: Any) -> None:
        """Take the next part of the pickle; raise `IndexError` if the unpickler would refuse it."""
        name = opcode.name
        if name in _PUTS or name == "MEMOIZE":
            self._memo[len(self._memo) if arg is None else int(arg)] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo.get(int(arg), 0))
            self.repeated += self._stack[-1]
        else:
            taken = self._take(opcode.stack_before)
            if name in _TUPLES:
                self._stack.append(1 + sum(taken))
            elif name in _FILLS:
                self._stack.append(taken[0])
            else:
                is_mark = pickletools.markobject
                self._stack += [_MARK if it is is_mark else 1 for it in opcode.stack_after]

    def _take(self, before: list[Any]) -> list[int]:
        """Remove what a part takes from the stack, and return it."""
        begin = len(self._stack) - len(before)
        if pickletools.markobject in before:
            begin = len(self._stack) - 1
            while self._stack[begin] != _MARK:
                begin -= 1
            begin -= before.index(pickletools.markobject)
        if begin < 0:
            raise IndexError("nothing on the stack")
        taken = self._stack[begin:]
        del self._stack[begin:]
        return taken
