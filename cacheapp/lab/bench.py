"""What an experiment works with: steps that are seen, and processes of their own for what is timed.

Everything that is timed runs in a fresh process and a session of its own, so that nothing of an
earlier step is left in it, and that all it started can be ended at once.
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
    """How long an experiment may take, and so how near it comes to what the article did."""

    SMALL = "small"
    USUAL = "usual"
    FULL = "full"


class ExperimentFailed(Exception):
    """What was to be timed could not be run; the message says what it printed."""


class RunStopped(Exception):
    """The one who started the experiment asked it to stop; nothing of it is left."""


class Stop(Protocol):
    """A `threading.Event` or what looks like one."""

    def is_set(self) -> bool:
        """Whether to stop."""


@dataclass(frozen=True)
class ExperimentProgress:
    """How far an experiment is: `done` steps of about `total`, and now `step`, since `step_s`."""

    name: str
    step: str
    done: int
    total: int
    step_s: float = 0.0


class Bench:
    """Hands out steps and processes to one experiment. Used by the thread that runs it."""

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
        """Say how many steps there will be."""
        self._total = steps

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Name what is done now; count it when it is over."""
        self._step, self._began_s = what, clock.monotonic_s()
        self.look()
        yield
        self._done += 1

    def look(self) -> None:
        """Tell how far it is; raise `RunStopped` if it should not go on."""
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
        """Call a function of `timed` in a process of its own; return what it returned.

        Arguments and result pass as JSON. All that the process started ends with it.
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
        left: bytes | None = given  # it remembers what it did not yet send
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
    """Close what was not read to its end."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not yet written to a dead process
                pipe.close()


def listing(*functions: Callable[..., Any]) -> str:
    """Return the source of what is timed, as it stands."""
    return "\n\n\n".join(inspect.getsource(function).strip() for function in functions) + "\n"
