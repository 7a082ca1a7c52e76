"""No loop of ours runs inside `with` or `try` if Python 3.13 or 3.14 leaves the end of the block out.

The interpreter looks for signals at the jump back to the begin of a loop. The compiler turns a conditional
jump back into one over a second, unconditional one, which has no entry in the exception table of the
function. What a signal handler raises there leaves the function at once, and a lock stays held. Before
Python 3.13, the exception belongs to the bytecode before the begin of the loop.

A conditional jump back is at the end of a loop that ends with an `if`, and of a comprehension with an `if`;
on 3.13 also of a `while` with a condition, and not of a `while True`; on 3.14 also of a generator in a call
of `any` or `all`, which runs in the function itself. In a function of its own, a loop is inside of
nothing; the `with` of its caller covers the call.
"""

import ast
import dis
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = sorted([*(ROOT / "cacheapp").rglob("*.py"), *(ROOT / "project").rglob("*.py")])
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.GeneratorExp, ast.ClassDef)


def _ends_conditionally(body: list[ast.stmt]) -> bool:
    """Return True if the last jump of this body may be a conditional one."""
    match body[-1]:
        case ast.Assert() | ast.Match():
            return True
        case ast.If(body=then, orelse=otherwise):
            return not otherwise or _ends_conditionally(then) or _ends_conditionally(otherwise)
        case ast.Try(body=tried, handlers=handlers, orelse=otherwise, finalbody=finally_):
            bodies = [tried, *(each.body for each in handlers), otherwise, finally_]
            return any(_ends_conditionally(each) for each in bodies if each)
    return False


def _jumps_back_conditionally(node: ast.AST) -> bool:
    match node:
        case ast.While(test=test) if not isinstance(test, ast.Constant):
            return True
        case ast.While(body=body) | ast.For(body=body) | ast.AsyncFor(body=body):
            return _ends_conditionally(body)
        case ast.ListComp(generators=parts) | ast.SetComp(generators=parts):
            return any(each.ifs for each in parts)
        case ast.DictComp(generators=parts):
            return any(each.ifs for each in parts)
        case ast.Call(func=ast.Name(id="any" | "all"), args=[ast.GeneratorExp()]):
            return True
    return False


def _parts(node: ast.AST, *, inside: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Yield the children, and whether each is inside a block whose end must not be left out."""
    covered: set[ast.AST] = set()
    match node:
        case ast.With(body=body) | ast.AsyncWith(body=body):
            covered.update(body)
        case ast.Try(body=body, handlers=handlers, orelse=otherwise, finalbody=finally_):
            if finally_:
                covered.update(body, handlers, otherwise)
            elif any(each.type is None or _is_base(each.type) for each in handlers):
                covered.update(body)
    is_function = isinstance(node, FUNCTIONS)
    for child in ast.iter_child_nodes(node):
        yield child, (inside or child in covered) and not is_function


def _is_base(node: ast.expr) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "BaseException" for each in ast.walk(node))


def uncovered_loops(node: ast.AST, *, inside: bool = False) -> Iterator[int]:
    """Yield the lines of such loops."""
    if inside and _jumps_back_conditionally(node):
        yield node.lineno  # type: ignore[attr-defined]
    for child, is_inside in _parts(node, inside=inside):
        yield from uncovered_loops(child, inside=is_inside)


def _in_sources(find: Callable[[str], Iterable[int]]) -> list[str]:
    return [f"{path}:{line}" for path in SOURCES for line in find(path.read_text())]


def test_no_loop_jumps_back_conditionally_inside_a_block() -> None:
    assert _in_sources(lambda source: uncovered_loops(ast.parse(source))) == []


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


class _Function:
    """The bytecode of a function."""

    def __init__(self, code: CodeType) -> None:
        skipped = {"CACHE", "EXTENDED_ARG", "NOT_TAKEN"}
        self.found = [each for each in dis.get_instructions(code) if each.opname not in skipped]
        self.entries = dis._parse_exception_table(code)  # type: ignore[attr-defined] # noqa: SLF001
        self.at = {each.offset: number for number, each in enumerate(self.found)}

    def uncovered(self) -> Iterator[int]:
        """Yield the lines of the jumps back that leave out a handler around them."""
        for tested, before, jump in zip(self.found, self.found[1:], self.found[2:], strict=False):
            if (
                jump.opname == "JUMP_BACKWARD"
                and before.opname.startswith("POP_JUMP")
                and self._handler(jump.offset) is None
            ):
                head = self.found[self._number(jump.argval)]
                of_loop = head if head.opname in {"FOR_ITER", "GET_ANEXT"} else tested
                if self._is_released(of_loop.offset):
                    yield (jump.positions and jump.positions.lineno) or 0

    def _number(self, offset: int) -> int:
        """Return which instruction is at an offset, behind its EXTENDED_ARG."""
        while offset not in self.at:
            offset += 2
        return self.at[offset]

    def _handler(self, offset: int) -> int | None:
        return next((each.target for each in self.entries if each.start <= offset < each.end), None)

    def _is_released(self, offset: int) -> bool:
        """Return True if a `with`, `finally` or `except BaseException` is around the offset."""
        handler = self._handler(offset)
        return handler is not None and (
            self._catches_all(self._number(handler)) or self._is_released(handler)
        )

    def _catches_all(self, number: int) -> bool:
        if self.found[number].opname != "PUSH_EXC_INFO":
            return False  # the end of a comprehension, or of a generator
        kinds = list(
            itertools.takewhile(
                lambda each: each.opname.startswith(("LOAD", "BUILD")), self.found[number + 1 :]
            )
        )
        if self.found[number + 1 + len(kinds)].opname != "CHECK_EXC_MATCH":
            return True
        return any(each.argval == "BaseException" for each in kinds)


def uncovered_jumps(source: str) -> list[int]:
    """Return the lines of such jumps."""
    codes = _codes(compile(source, "source", "exec"))
    return [line for code in codes for line in _Function(code).uncovered()]


LOOPS: dict[str, set[int]] = {
    "while items(): items": {13},
    "for each in items:\n    if each: each()": {13, 14},
    "for each in items:\n    assert each": {13, 14},
    "while True:\n    if items(): break": {14},
    "[each for each in items if each]": {13, 14},
    "any(each for each in items)": {14},
    "for each in items: each()": set(),
    "while True: items()": set(),
    "list(each for each in items if each)": set(),
}
"""Loops, and the versions 3.x that leave a block around them out."""

INSIDE = {
    "with lock:\n{}": True,
    "try:\n{}\nfinally: lock()": True,
    "try:\n{}\nexcept (KeyError, BaseException): raise": True,
    "with lock:\n    try:\n{}\n    except KeyError: pass": True,
    "try:\n{}\nexcept (KeyError, ValueError): pass": False,
    "try: lock()\nfinally:\n{}": False,
    "with lock:\n    def inner(items):\n{}": False,
}
"""Blocks, and whether their end releases something."""


def _samples() -> Iterator[tuple[str, set[int]]]:
    for loop, block in itertools.product(LOOPS, INSIDE):
        body = block.format(textwrap.indent(loop, " " * 8))
        source = f"def function(lock, items):\n{textwrap.indent(body, '    ')}\n"
        yield source, LOOPS[loop] if INSIDE[block] else set()


def test_the_loops_of_the_samples_are_found() -> None:
    for source, versions in _samples():
        assert bool(list(uncovered_loops(ast.parse(source)))) is bool(versions), source


belongs_to_the_jump = pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="before Python 3.13 the exception belongs to another bytecode",
)


@belongs_to_the_jump
def test_the_compiler_leaves_these_jumps_out() -> None:
    for source, versions in _samples():
        if sys.version_info[1] in {13, 14}:
            assert bool(uncovered_jumps(source)) is (sys.version_info[1] in versions), source


@belongs_to_the_jump
def test_no_jump_back_leaves_a_handler_out() -> None:
    assert _in_sources(uncovered_jumps) == []
