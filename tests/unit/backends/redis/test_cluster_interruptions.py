"""A signal handler may raise wherever Python looks for signals; what the cluster's objects share stays usable."""

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from cacheapp.backends.redis import executor as one_server
from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.cluster import executor, node, topology
from cacheapp.backends.redis.cluster.executor import ClusterExecutor
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.cluster.topology import Topology
from cacheapp.backends.redis.executor import FailureKind

# Where a generator is closed by its finaliser, nothing can receive the exception.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FILES = {module.__file__ for module in (executor, node, topology, one_server)}
KEYS = [b"a", b"b", b"c", b"d"]
SLOTS = [[0, 8191, [b"host", 1, b"id-1"]], [8192, 16383, [b"host", 2, b"id-2"]]]


class Interrupted(Exception):
    """What the handler raises."""


class Connection:
    """A connection to a node that replies to all commands."""

    health_check_interval = 0
    _parser = None

    def pack_command(self, *command: bytes) -> list[bytes]:
        return [b" ".join(command)]

    def send_packed_command(self, packed: list[bytes], *, check_health: bool) -> None:
        assert not check_health
        self._asked = packed

    def read_response(self, *, disable_decoding: bool) -> Any:
        assert disable_decoding
        return SLOTS if self._asked == [b"CLUSTER SLOTS"] else b"value"

    def disconnect(self) -> None:
        pass


class Pool:
    """A pool that knows which of its connections are in use, in all pools."""

    in_use: set[Connection]

    def __init__(self, in_use: set[Connection]) -> None:
        self.in_use = in_use

    def lend(self) -> Connection:
        made = Connection()
        self.in_use.add(made)
        return made

    def release(self, connection: Connection) -> None:
        self.in_use.discard(connection)

    def disconnect(self, **_options: Any) -> None:
        pass


def interrupt(work: Callable[[], object], at: int) -> bool:
    """Raise at the `at`-th of the places in `FILES` where Python runs handlers; return False if there are fewer.

    Those are the begin of a function, and the return from one that is written in C.
    """
    seen = 0

    def profile(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal seen
        if event in {"call", "c_return"} and frame.f_code.co_filename in FILES:
            seen += 1
            if seen == at:
                raise Interrupted

    sys.setprofile(profile)
    try:
        work()
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    return False


WORK: dict[str, Callable[[ClusterExecutor], object]] = {
    "load": lambda made: made.topology.load(),
    "refresh": lambda made: made.topology.refresh(),
    "execute": lambda made: made.execute(b"GET", b"a", kind=FailureKind.READ),
    "many keys": lambda made: list(made.execute_by_slot(KEYS, lambda own: (b"GET", *own))),
    "another owner": lambda made: made.topology.another_owner(0, made.topology.owner(0)),
    "moved": lambda made: made.topology.moved(0, "host", 2),
}


@pytest.mark.parametrize("name", WORK)
def test_an_interruption_anywhere_leaves_no_connection_and_no_lock_behind(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("cacheapp.backends.redis.cluster.topology.REFRESH_EVERY_S", 0.0)
    for at in range(1, 1000):
        in_use: set[Connection] = set()

        def open_node(host: str, port: int, in_use: set[Connection] = in_use) -> ClusterNode:
            return ClusterNode(Pool(in_use), CircuitBreaker(f"{host}:{port}"), host, port)

        made = ClusterExecutor(
            Topology([("host", 1)], open_node, "the cluster"), "the cluster", 1.0
        )
        if name != "load":
            made.topology.load()
        interrupted = interrupt(lambda made=made: WORK[name](made), at)  # type: ignore[misc]
        assert not in_use, f"a connection, interrupted at {at}"
        asked_at_s = made.topology._refreshed_at_s  # noqa: SLF001
        thread = threading.Thread(
            target=lambda made=made: (made.topology.load(), made.topology.refresh()), daemon=True
        )
        thread.start()
        thread.join(60)
        assert made.topology._refreshed_at_s > asked_at_s, f"interrupted at {at}"  # noqa: SLF001
        if not interrupted:
            assert at > 2, "no place was found"
            return
    raise AssertionError("it never ends")
