"""The tools of an experiment: steps with progress, and fresh processes for the timed code.

All timed code runs in a new process with a session of its own: nothing of an earlier step remains in
it, and everything that it starts can be ended at once.
"""

import contextlib
import enum
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from cacheapp import clock
from cacheapp.processes.servers import child_env, dies_with_us

LOOK_EVERY_S = 0.1


class Scale(enum.StrEnum):
    """How long an experiment may take: `FULL` is as long as in the article."""

    SMALL = "small"
    USUAL = "usual"
    FULL = "full"


class ExperimentFailed(Exception):
    """The timed code did not run; the message has its output."""


class RunStopped(Exception):
    """The experiment was stopped on request; all its processes have ended."""


class Stop(Protocol):
    """A `threading.Event`, or anything with its `is_set`."""

    def is_set(self) -> bool:
        """Whether to stop."""


@dataclass(frozen=True)
class ExperimentProgress:
    """Progress: `done` steps of about `total`, and the current `step`, since `step_s` seconds."""

    name: str
    step: str
    done: int
    total: int
    step_s: float = 0.0


class Bench:
    """The steps and processes of one experiment. Used by the thread that runs it."""

    def __init__(
        self,
        name: str,
        scale: Scale = Scale.USUAL,
        progress: Callable[[ExperimentProgress], None] = lambda _: None,
        stop: Stop | None = None,
    ) -> None:
        self.scale = scale
        self._name = name
        self._progress = progress
        self._stop = stop
        self._total = 1
        self._done = 0
        self._step = "starting"
        self._began_s = clock.monotonic_s()

    def expect(self, steps: int) -> None:
        """Set the number of steps."""
        self._total = steps

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Name the current step; count it at its end."""
        self._step, self._began_s = what, clock.monotonic_s()
        self.look()
        yield
        self._done += 1

    def look(self) -> None:
        """Report the progress; raise `RunStopped` if the experiment was stopped."""
        if self._stop is not None and self._stop.is_set():
            raise RunStopped(f"{self._name}: stopped during {self._step!r}")
        step_s = clock.monotonic_s() - self._began_s
        self._progress(ExperimentProgress(self._name, self._step, self._done, self._total, step_s))

    def measure(
        self,
        function: Callable[..., Any],
        *args: Any,
        python: str = sys.executable,
        within_s: float = 120.0,
    ) -> Any:
        """Call a function of `timed` in a process of its own; return its result.

        Arguments and result are passed as JSON. Everything the process starts ends with it.
        """
        target = f"{function.__module__}:{function.__qualname__}"
        process = _spawn([python, "-m", "cacheapp.lab.child", target])
        try:
            printed, errors = self._await(process, json.dumps(args).encode(), within_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            close_pipes(process)
        if process.returncode:
            last = "\n".join(errors.decode(errors="replace").splitlines()[-8:])
            raise ExperimentFailed(f"{target} ended with {process.returncode}:\n{last}")
        return json.loads(printed)

    def _await(
        self, process: subprocess.Popen[bytes], given: bytes, within_s: float
    ) -> tuple[bytes, bytes]:
        deadline = clock.monotonic_s() + within_s
        left: bytes | None = given  # communicate() keeps what it has not sent yet
        while True:
            try:
                return process.communicate(left, timeout=LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                left = None
                self.look()
            if clock.monotonic_s() > deadline:
                raise ExperimentFailed(f"{self._step!r} took longer than {within_s:g} s")


def _spawn(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 (the command is ours)
        dies_with_us(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_env(),
        start_new_session=True,
    )


def close_pipes(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a process that has ended."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):  # unsent input of a dead process
                pipe.close()


def listing(*functions: Callable[..., Any]) -> str:
    """Return the source of the timed functions."""
    return "\n\n\n".join(inspect.getsource(function).strip() for function in functions) + "\n"
