"""The journals of the clients, which survive a client that is killed.

Each thread has a file, with a line before each call and one after it, written by one `write` each:
what the kernel has accepted survives the process. A call without a return was in progress when its
process died; its outcome is unknown.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cacheapp.consistency.history import ABSENT, Operation, OperationKind, Outcome

_MISSES = {OperationKind.GET, OperationKind.INCR, OperationKind.DECR}


class Journal:
    """The file of one thread."""

    def __init__(self, directory: Path, process: str) -> None:
        self.process = process
        self._file = os.open(
            directory / f"{process}-{os.getpid()}-{os.urandom(3).hex()}.journal",
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
            0o600,
        )

    def write(self, *fields: Any) -> None:
        """Add a line."""
        os.write(self._file, json.dumps(fields).encode() + b"\n")

    def call(self, kind: OperationKind, key: str, argument: Any, call_ns: int) -> None:
        """Write a call that is about to be made."""
        self.write("call", self.process, kind, key, argument, call_ns)

    def answer(self, result: Any, outcome: Outcome, return_ns: int, error: str = "") -> None:
        """Write the result of the latest call."""
        written = None if result is ABSENT else result
        self.write("return", written, outcome, return_ns, error)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Journals:
    """The journals of all clients, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.errors: list[str] = []
        """The errors of calls since the last `collect`."""

    def lines(self, number: int) -> int:
        """Return how many lines the threads of one client have written since the last `collect`."""
        paths = self.directory.glob(f"p{number}[.-]*.journal")
        return sum(path.read_bytes().count(b"\n") for path in paths)

    def collect(self) -> list[Operation]:
        """Return all operations since the last call, and remove their files."""
        self.errors = []
        found: list[Operation] = []
        for path in sorted(self.directory.glob("*.journal")):
            found += self._read(path)
            path.unlink()
        return found

    def _read(self, path: Path) -> Iterator[Operation]:
        call: list[Any] | None = None
        for line in path.read_bytes().splitlines():
            try:
                what, *fields = json.loads(line)
            except ValueError:  # the last line of a client that was killed
                continue
            if what == "call":
                if call:
                    yield _unanswered(call)
                call = fields
            elif call:
                yield self._answered(call, fields)
                call = None
        if call:
            yield _unanswered(call)

    def _answered(self, call: list[Any], fields: list[Any]) -> Operation:
        process, kind, key, argument, call_ns = call
        result, outcome, return_ns, error = fields
        if error:
            self.errors.append(error)
        if result is None and OperationKind(kind) in _MISSES and outcome == Outcome.OK:
            result = ABSENT
        return Operation(
            process,
            OperationKind(kind),
            key,
            call_ns,
            return_ns,
            argument,
            result,
            Outcome(outcome),
        )


def _unanswered(call: list[Any]) -> Operation:
    process, kind, key, argument, call_ns = call
    return Operation(process, OperationKind(kind), key, call_ns, None, argument, None, Outcome.INFO)
