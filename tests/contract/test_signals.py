"""What every shared backend promises to signal handlers, which run inside any operation."""

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator

from cacheapp.backends.core.shared import SharedCache
from cacheapp.processes.waiting import until


@contextlib.contextmanager
def _interrupted(handler: Callable[[], None]) -> Iterator[None]:
    """Run `handler` between two bytecodes of this thread again and again, never in itself."""
    # CPU time, so that a test that hangs is not kept alive by its own timer.
    after_s = itertools.cycle([0.0011, 0.0017, 0.0023])

    def handle(_number: int, _frame: object) -> None:
        handler()
        signal.setitimer(signal.ITIMER_VIRTUAL, next(after_s))

    before = signal.signal(signal.SIGVTALRM, handle)
    signal.setitimer(signal.ITIMER_VIRTUAL, next(after_s))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_a_signal_handler_may_use_the_cache_inside_an_operation(cache: SharedCache) -> None:
    cache.set_many({"outer": 0, "read": "by the handler"})
    seen: list[object] = []

    def read() -> None:
        seen.append(cache.get("read"))
        seen.append(cache.stats()["errors_raised"])

    total = 0

    def enough() -> bool:
        nonlocal total
        for _ in range(20):
            total += 1
            assert cache.incr("outer") == total
            cache.stats()
        return len(seen) >= 200

    with _interrupted(read):
        until(enough, "enough signals", within_s=60)
    assert set(seen) == {"by the handler", 0}
