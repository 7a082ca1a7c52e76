"""Which process of a machine listens: one that makes progress is replaced by no other."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cacheapp import clock
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.listener import InvalidationListener
from cacheapp.backends.near.records import NO_STATE, NotOwner
from cacheapp.backends.near.tracking import Command, Messages, ServersChanged, TrackingConnection

WITHIN_S = 60
Renew = Callable[[], None]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the claims, which the test moves."""
    found = [clock.boot_s()]
    monkeypatch.setattr(clock, "boot_s", lambda: found[0])
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[LocalCopy]:
    made = LocalCopy(tmp_path / "copy", 2**20, 1.0)
    yield made
    made.close()


class SlowServers:
    """Servers of which a script is what connecting to them takes; none is ever reached."""

    questions: Sequence[Command] = ()

    def __init__(self, script: Callable[[Renew], None]) -> None:
        self._script = script
        self.ended = threading.Event()

    def connect(
        self, _connections: list[TrackingConnection], _messages: Messages, renew: Renew
    ) -> None:
        try:
            self._script(renew)
        finally:
            self.ended.set()
        raise ServersChanged("the end of the script")

    def check(self, replies: Sequence[Sequence[object]]) -> None:
        raise AssertionError(replies)

    def owners(self) -> bytes:
        return b""


def listen(copy: LocalCopy, script: Callable[[Renew], None], timeout_s: float) -> None:
    """Become the listener, and return at the end of the script."""
    servers = SlowServers(script)
    listener = InvalidationListener(
        lambda: servers, copy, "Redis", lambda _count: None, lambda: 0, timeout_s
    )
    listener.ensure(NO_STATE, clock.boot_s())
    assert servers.ended.wait(WITHIN_S)
    listener.stop()


@pytest.mark.parametrize(("timeout_s", "step_s"), [(1.0, 9.0), (30.0, 115.0)])
def test_no_process_takes_the_claim_of_one_that_connects_to_slow_nodes(
    copy: LocalCopy, now: list[float], timeout_s: float, step_s: float
) -> None:
    others: list[bytes | None] = []

    def script(renew: Renew) -> None:
        for _ in range(5):
            renew()
            now[0] += step_s
            others.append(copy.claim(1.0))

    listen(copy, script, timeout_s)
    assert others == [None] * 5


def test_a_process_that_has_lost_its_claim_connects_to_no_further_node(
    copy: LocalCopy, now: list[float]
) -> None:
    steps: list[str] = []

    def script(renew: Renew) -> None:
        renew()
        now[0] += 1000
        assert copy.claim(10.0) is not None
        steps.append("another process is the listener")
        with pytest.raises(NotOwner):
            renew()
        steps.append("ended")

    listen(copy, script, 1.0)
    assert steps == ["another process is the listener", "ended"]
    assert copy.claim(10.0) is None, "the claim of the other one is released"


@pytest.mark.parametrize(("round_s", "claimed_s"), [(2.0, 8.0), (3600.0, 10.0)])
def test_a_listener_whose_rounds_take_long_keeps_its_claim_for_some(
    copy: LocalCopy, now: list[float], round_s: float, claimed_s: float
) -> None:
    """It confirms nothing then. Without this, all processes would connect to all nodes in turn.

    A round of an hour is one of a process that was stopped.
    """
    owner = copy.claim(10.0)
    assert owner is not None
    copy.begin_epoch(owner)
    now[0] += 9.0
    copy.apply(owner, [], confirmed=(now[0] - round_s, round_s))
    now[0] += claimed_s - 1.0
    assert copy.claim(10.0) is None
    now[0] += 2.0
    assert copy.claim(10.0) is not None
