"""Start the daemon threads that help the callers of a cache; the system may refuse one for a while.

A pids limit of a container or `ulimit -u` makes a start fail. A user of this module therefore notes
a thread only after `start` returned True, tries again at the next need, and does without until then.
"""

import logging
import sys
import threading
from collections.abc import Callable

from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.local.interruptions import raised_by_handler

logger = logging.getLogger(__name__)
_failures = LogThrottle()


def start(name: str, target: Callable[..., None], *args: object) -> bool:
    """Start a daemon thread; return False if the system does not allow one now."""
    handled_before = sys.exception()
    try:
        threading.Thread(target=target, args=args, name=name, daemon=True).start()
    except (KeyError, RuntimeError, MemoryError) as exc:
        # Python replaces an exception that a signal handler raised while the thread began to run.
        if (interruption := raised_by_handler(exc, handled_before)) is not None:
            raise interruption from None
        if isinstance(exc, KeyError):
            raise
        if (withheld := _failures.due()) is not None:
            logger.warning(
                "%s not started, tried again when it is needed: %s (%d more since the last such line)",
                name,
                exc,
                withheld,
                extra={"event": "cache_thread_not_started"},
            )
        return False
    return True
