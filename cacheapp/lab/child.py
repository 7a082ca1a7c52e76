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
    """End this process and all that it started: they are one process group."""
    os.killpg(0, signal.SIGKILL)


def _end_alone() -> None:
    """Have SIGTERM end a forked process alone, and at once: a pool ends its own so."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main() -> None:
    """Call what is named with what stands on stdin; print what it returned."""
    signal.signal(signal.SIGTERM, _end_all)  # the kernel's, when the one who started us is gone
    os.register_at_fork(after_in_child=_end_alone)
    # The result goes where stdout went; what the function prints must not mix with it.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        module, _, name = sys.argv[1].partition(":")
        function = getattr(importlib.import_module(module), name)
        json.dump(function(*json.load(sys.stdin)), out)


if __name__ == "__main__":
    main()
