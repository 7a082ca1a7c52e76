"""Run a test in a forked process: it has one thread, so a fork in C copies no thread's state."""

import functools
import os
import traceback
from collections.abc import Callable
from typing import ParamSpec

from cacheapp.backends.core.store import registry
from tests.integration.backends.children import end_of

P = ParamSpec("P")


def in_own_process(test: Callable[P, None]) -> Callable[P, None]:
    """Fork, run the test in the child, and fail if it does.

    The threads of other tests may wait for the interpreter lock. A fork in C copies that lock with
    waiters that do not exist in the child, which may then hang, with or without a cache.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                registry._stores.clear()  # noqa: SLF001 (those of other tests, which a fork would reach)
                test(*args, **kwargs)
                code = 0
            except BaseException:  # noqa: BLE001 (the parent fails)
                traceback.print_exc()
            finally:
                os._exit(code)
        assert end_of(pid, 200) == 0

    return run
