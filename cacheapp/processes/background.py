"""Start a long command in a process of its own, for pages: any worker may watch and stop it.

The lock is acquired here and its descriptor passed to the process, so of two starts at the same
moment one is refused at once. The process outlives the worker that started it.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from django.conf import settings

from cacheapp.processes import exclusive_run, run_record
from cacheapp.processes.exclusive_run import Busy, Holder
from cacheapp.processes.servers import child_env

__all__ = ["Busy", "Holder", "start_command", "stop"]


def start_command(
    command: str, arguments: list[str], name: str, begin: Callable[[], object]
) -> Holder:
    """Start a command of `manage.py` that takes `--lock-fd`, and return at once; raise `Busy`.

    `begin()` records that it begins; it is called while this process holds the exclusive run.
    """
    descriptor = exclusive_run.acquire()
    try:
        with _new_log() as log:
            # From now on readers find this run, not the last one.
            exclusive_run.set_holder(descriptor, os.getpid(), name)
            begin()
            options = [*arguments, "--lock-fd", str(descriptor)]
            process = _spawn([command, *options], descriptor, log)
        holder = exclusive_run.set_holder(descriptor, process.pid, name, stoppable=True)
    except BaseException:
        exclusive_run.clear_holder(descriptor)  # this process lives on, without the run
        raise
    finally:
        os.close(descriptor)
    # A parent must wait for its child, or the child stays a zombie. Without a thread, the
    # `subprocess` module waits for it when it starts the next one.
    with contextlib.suppress(RuntimeError):
        threading.Thread(target=process.wait, name="lab-experiment", daemon=True).start()
    return holder


def stop() -> Holder | None:
    """Stop the run in progress; return its holder, `None` if there is none."""
    return exclusive_run.stop()


def _new_log() -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(exclusive_run.directory() / run_record.LOG, flags, 0o600)
    return open(descriptor, "wb")  # noqa: PTH123


def _spawn(arguments: list[str], descriptor: int, log: BinaryIO) -> "subprocess.Popen[bytes]":
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
