"""Histories for the checker's tests: random ones, and an explanation by trying every order."""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome


def op(
    process: str,
    kind: str,
    call: int,
    end: int | None,
    argument: Any = None,
    result: Any = None,
    outcome: Outcome | None = None,
    key: str = "k",
) -> Operation:
    said = outcome or (Outcome.INFO if end is None else Outcome.OK)
    return Operation(process, OperationKind(kind), key, call, end, argument, result, said)


def answer(cell: dict[str, Any], one: Operation) -> Any:  # noqa: PLR0911 (a case each)
    """Do one operation on a cell, as a cache would, and return what it answers."""
    there = "value" in cell
    match one.kind:
        case OperationKind.GET:
            return cell.get("value", ABSENT)
        case OperationKind.SET:
            cell["value"] = one.argument
            return None
        case OperationKind.ADD:
            cell.setdefault("value", one.argument)
            return not there
        case OperationKind.DELETE:
            cell.clear()
            return there
        case OperationKind.INCR | OperationKind.DECR:
            if not there:
                return ABSENT
            delta: Any = one.argument
            cell["value"] += delta if one.kind is OperationKind.INCR else -delta
            return cell["value"]
        case _:
            return there


def explained(operations: Sequence[Operation], *, evicts: bool) -> bool:
    """Return whether some order of the operations gives every answer, by trying all of them."""
    sure = [one for one in operations if one.outcome is Outcome.OK]
    unsure = [one for one in operations if one.outcome is Outcome.INFO]
    for count in range(len(unsure) + 1):
        for some in itertools.combinations(unsure, count):
            for order in itertools.permutations([*sure, *some]):
                if _in_time(order) and _answers(order, evicts=evicts):
                    return True
    return False


def _in_time(order: Sequence[Operation]) -> bool:
    return not any(
        later.end < earlier.call_ns for earlier, later in itertools.combinations(order, 2)
    )


def _answers(order: Sequence[Operation], *, evicts: bool) -> bool:
    for evicted in _evictions(len(order)) if evicts else [()]:
        cell: dict[str, Any] = {}
        for number, one in enumerate(order):
            if number in evicted:
                cell.clear()
            told = answer(cell, one)
            if told != one.result and (one.outcome is Outcome.OK or one.result is not None):
                break
        else:
            return True
    return False


def _evictions(count: int) -> Iterator[tuple[int, ...]]:
    for size in range(count + 1):
        yield from itertools.combinations(range(count), size)


def random_history(rng: random.Random, size: int, processes: int = 3) -> list[Operation]:
    """Return operations of processes that do one thing at a time, most with a plausible answer."""
    clock = dict.fromkeys((f"p{number}" for number in range(processes)), 0)
    found = []
    for number in range(size):
        process = rng.choice(list(clock))
        call = clock[process] + rng.randint(0, 3)
        end = call + rng.randint(0, 6)
        clock[process] = end + 1
        kind = rng.choice(list(OperationKind))
        argument = {
            OperationKind.SET: number % 3,
            OperationKind.ADD: number % 3,
            OperationKind.INCR: 1,
            OperationKind.DECR: 1,
        }.get(kind)
        chance = rng.random()
        if chance < 0.12:
            found.append(op(process, kind, call, None, argument))
            del clock[process]
            clock[f"{process}'"] = end + 1
        elif chance < 0.16:
            found.append(op(process, kind, call, end, argument, outcome=Outcome.FAIL))
        else:
            found.append(op(process, kind, call, end, argument, _result(rng, kind)))
    return found


def _result(rng: random.Random, kind: OperationKind) -> Any:
    if kind is OperationKind.SET:
        return None
    if kind in {OperationKind.GET, OperationKind.INCR, OperationKind.DECR}:
        return rng.choice([ABSENT, 0, 1, 2, 3])
    return rng.choice([True, False])


def run_history(
    rng: random.Random, size: int, processes: int = 4, keys: int = 1, spread: int = 10
) -> list[Operation]:
    """Return a history that has an order: each answer is what a cache gave inside its interval."""
    cells: list[dict[str, Any]] = [{} for _ in range(keys)]
    free = [rng.randint(0, spread) for _ in range(processes)]
    points = []
    for number in range(size):
        process = rng.randrange(processes)
        call = free[process] + rng.randint(0, spread)
        point = call + rng.randint(0, spread)
        end = point + rng.randint(0, spread)
        free[process] = end + 1
        points.append((point, number, process, call, end))
    found = []
    for _, number, process, call, end in sorted(points):
        kind = rng.choice([*OperationKind, OperationKind.GET, OperationKind.GET, OperationKind.SET])
        argument = {
            OperationKind.SET: number,
            OperationKind.ADD: number,
            OperationKind.INCR: 1,
            OperationKind.DECR: 1,
        }.get(kind)
        key = rng.randrange(keys)
        asked = op(f"p{process}", kind, call, end, argument, key=f"k{key}")
        told = answer(cells[key], asked)
        if rng.random() < 0.003:
            found.append(op(f"p{process}", kind, call, None, argument, key=f"k{key}"))
        else:
            found.append(op(f"p{process}", kind, call, end, argument, told, key=f"k{key}"))
    return found


def distinct_history(rng: random.Random, size: int, kinds: Sequence[str]) -> list[Operation]:
    """Return operations that write each value once, with random results."""
    free = [0] * rng.randint(2, 4)
    written: list[Any] = [ABSENT]
    asked: list[tuple[str, str, int, int, Any]] = []
    for number in range(size):
        process = rng.randrange(len(free))
        call = free[process] + rng.randint(0, 3)
        end = call + rng.randint(0, 6)
        free[process] = end + 1
        kind = rng.choice(kinds)
        argument = number + 1 if kind in {"set", "add"} else None
        if argument is not None:
            written.append(argument)
        asked.append((f"p{process}", kind, call, end, argument))
    found = []
    for process_name, kind, call, end, argument in asked:
        if kind != "get" and rng.random() < 0.1:
            found.append(op(process_name, kind, call, None, argument))
            continue
        result: Any = {"get": rng.choice(written), "set": None}.get(kind, rng.random() < 0.6)
        found.append(op(process_name, kind, call, end, argument, result))
    return found
