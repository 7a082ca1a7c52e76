"""`python -m cacheapp.lab.child MODULE:FUNCTION`: arguments and result as JSON.

Imports only the standard library: it also runs under interpreters that have nothing else.
"""

import importlib
import json
import os
import signal
import sys
from types import FrameType


def _end_all(_number: int, _frame: "FrameType | None") -> None:
    """Kill this process and all that it started: they are one process group."""
    os.killpg(0, signal.SIGKILL)


def _end_alone() -> None:
    """Restore SIGTERM in a forked process: a pool ends its processes with it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main() -> None:
    """Call the named function with the arguments on stdin; print its result."""
    signal.signal(signal.SIGTERM, _end_all)  # from the kernel, when the parent has ended
    os.register_at_fork(after_in_child=_end_alone)
    # The result goes to the real stdout; output of the function must not mix with it.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        module, _, name = sys.argv[1].partition(":")
        function = getattr(importlib.import_module(module), name)
        json.dump(function(*json.load(sys.stdin)), out)


if __name__ == "__main__":
    main()
