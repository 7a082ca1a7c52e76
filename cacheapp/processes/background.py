"""Runs experiments in a process of their own, for pages: any worker may watch and stop it.

The turn is taken here and handed to the process with its descriptor, so that of two who start at
the same moment one is refused, and nobody waits to learn which. The process outlives the worker
that started it.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

from cacheapp.lab import kept
from cacheapp.lab.bench import Scale, child_env
from cacheapp.lab.run import find
from cacheapp.processes import turn
from cacheapp.processes.turn import Busy, Holder

__all__ = ["Busy", "Holder", "start", "start_command", "stop"]


def start(name: str, *, full: bool = False) -> Holder:
    """Start an experiment and return at once; raise `Busy`, or `UnknownExperiment`.

    `kept.status()` tells how far it is, `kept.result(name)` what it found.
    """
    find(name)
    scale = Scale.FULL if full else Scale.USUAL
    arguments = [name, *(["--full"] if full else [])]
    return start_command("lab", arguments, name, lambda: kept.begin([name], scale))


def start_command(
    command: str, arguments: list[str], name: str, begin: Callable[[], object]
) -> Holder:
    """Start a command of `manage.py` that takes `--turn`, and return at once; raise `Busy`.

    `begin()` notes that it begins; it is called by the one who has the turn.
    """
    descriptor = turn.take()
    try:
        # Whoever looks from now on sees this run, not the last one; this process has the turn.
        turn.say_who(descriptor, os.getpid(), name)
        begin()
        process = _spawn([command, *arguments, "--turn", str(descriptor)], descriptor)
        holder = turn.say_who(descriptor, process.pid, name, stoppable=True)
    except BaseException:
        turn.say_nobody(descriptor)  # this process lives on, and has no turn
        raise
    finally:
        os.close(descriptor)
    # Whoever started a process must read its end, or its number stays taken.
    threading.Thread(target=process.wait, name="lab-experiment", daemon=True).start()
    return holder


def stop() -> Holder | None:
    """Ask the one who runs an experiment to stop; return who that is, `None` if nobody does."""
    return turn.stop()


def _spawn(arguments: list[str], descriptor: int) -> "subprocess.Popen[bytes]":
    with (turn.directory() / "log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 (the command is ours)
            [sys.executable, "-m", "django", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**child_env(), "DJANGO_SETTINGS_MODULE": str(settings.SETTINGS_MODULE)},
            cwd=getattr(settings, "BASE_DIR", Path.cwd()),
            pass_fds=[descriptor],
            start_new_session=True,
        )
