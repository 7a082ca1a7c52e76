"""How long the checker takes to judge a long history, and how many keys it leaves unknown.

`python -m benchmarks.consistency.search`: 100,000 operations over 100 keys by 8 processes, as a cache
answered them, with one in a thousand left unanswered; then the same history with one lie in it, to
be found and shrunk. Then 1,000,000 operations of registers, only `get` and `set`, which zones judge.
What counts is this process's CPU time, since it is one thread that waits for nothing; the wall time
stands beside it. Not measured: recording.
"""

import random
import statistics
import sys
import time
from collections.abc import Sequence

from benchmarks.measuring.report import command_line, write_report
from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome
from cacheapp.consistency.judge import Judgement, judge
from cacheapp.consistency.models import Key
from cacheapp.consistency.search import Verdict

GOAL_S = 5.0
REGISTERS_GOAL_S = 10.0
_REGISTERS = [OperationKind.GET, OperationKind.GET, OperationKind.SET]
_KINDS = [
    *OperationKind,
    OperationKind.GET,
    OperationKind.GET,
    OperationKind.GET,
    OperationKind.SET,
]


def make(
    seed: int,
    count: int,
    keys: int,
    processes: int,
    unanswered: float = 0.001,
    kinds: Sequence[OperationKind] = _KINDS,
) -> list[Operation]:
    """Return a history with an order: each answer is that of an instant inside its interval."""
    rng = random.Random(seed)
    free = [0] * processes
    points = []
    for number in range(count):
        process = rng.randrange(processes)
        call = free[process] + rng.randint(0, 10)
        point = call + rng.randint(0, 40)
        free[process] = point + rng.randint(0, 40) + 1
        points.append((point, number, process, call, free[process] - 1))
    states: dict[str, object] = {}
    found = []
    for _, number, process, call, end in sorted(points):
        kind = rng.choice(kinds)
        key = f"k{rng.randrange(keys)}"
        counts = kind in {OperationKind.INCR, OperationKind.DECR}
        argument = (
            1
            if counts
            else number * 1_000
            if kind in {OperationKind.SET, OperationKind.ADD}
            else None
        )
        unsure = Operation(str(process), kind, key, call, None, argument, None, Outcome.INFO)
        before = states.get(key, ABSENT)
        after = before if kind is OperationKind.GET else Key().step(before, unsure)
        states[key] = after
        if rng.random() < unanswered:
            found.append(unsure)
        else:
            told = _told(kind, before, after)
            found.append(Operation(str(process), kind, key, call, end, argument, told))
    return found


def _told(kind: OperationKind, before: object, after: object) -> object:
    if kind is OperationKind.GET:
        return before
    if kind is OperationKind.SET:
        return None
    if kind in {OperationKind.INCR, OperationKind.DECR}:
        return after
    there = before is not ABSENT
    return not there if kind is OperationKind.ADD else there


def _timed(operations: list[Operation]) -> tuple[Judgement, float, float]:
    began, used = time.monotonic(), time.process_time()
    judged = judge(operations)
    return judged, time.monotonic() - began, time.process_time() - used


def _measure(history: list[Operation], name: str) -> tuple[bool, list[float]]:
    """Judge a history that has an order, then with one lie; return whether both were right."""
    judged, wall_s, cpu_s = _timed(history)
    last = max(one.call_ns for one in history) + 1_000
    lie = Operation("0", OperationKind.GET, history[0].key, last, last + 1, None, -1)
    lied, lie_wall_s, lie_cpu_s = _timed([*history, lie])
    print(
        f"{name}: {judged.verdict} in {cpu_s:.2f} s of CPU ({wall_s:.2f} s in all); "
        f"with a lie: {lied.verdict} in {lie_cpu_s:.2f} s of CPU ({lie_wall_s:.2f} s in all)"
    )
    right = (judged.verdict, lied.verdict) == (Verdict.LINEARIZABLE, Verdict.ILLEGAL)
    return right, [cpu_s, lie_cpu_s]


def main() -> int:
    """Measure and print; return 0 if every verdict was right and none took more CPU than the goal."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--registers", type=int, default=1_000_000)
    asked = parser.parse_args()
    right, spent = True, []
    for seed in range(asked.rounds):
        history = make(seed, asked.operations, asked.keys, asked.processes)
        correct, took = _measure(history, f"mixed, seed {seed}")
        right &= correct
        spent += took
    history = make(0, asked.registers, asked.keys, asked.processes, 0.0001, _REGISTERS)
    correct, registers = _measure(history, "registers")
    right &= correct
    print(
        f"{asked.keys} keys, {asked.processes} processes, CPU: {asked.operations} mixed: median "
        f"{statistics.median(spent):.2f} s, slowest {max(spent):.2f} s (goal {GOAL_S:g} s); "
        f"{asked.registers} of registers: {max(registers):.2f} s (goal {REGISTERS_GOAL_S:g} s)"
    )
    figures = {
        "cpu_s": spent,
        "goal_s": GOAL_S,
        "registers_cpu_s": registers,
        "registers_goal_s": REGISTERS_GOAL_S,
        "all_verdicts_right": right,
    }
    write_report(asked.json, "consistency.search", (), figures)
    return 0 if right and max(spent) < GOAL_S and max(registers) < REGISTERS_GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
