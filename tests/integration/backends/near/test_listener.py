"""The listener's thread: started once, ended with its store, started again after any interruption."""

import json
import os
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cacheapp import clock
from cacheapp.backends import NearCache
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.listener import InvalidationListener
from cacheapp.backends.near.records import NO_STATE
from cacheapp.processes.servers import RedisServer, child_env
from cacheapp.processes.waiting import until
from tests.contract.backends import PATIENT
from tests.integration.backends.interrupt_everywhere import finalised_everywhere, interrupt_at
from tests.integration.backends.near.parts import confirmed, ours
from tests.integration.interrupts import place_in


@pytest.fixture
def cache(redis_server: RedisServer, tmp_path: Path) -> NearCache:
    """A cache that nothing has read yet, with a prefix of its own."""
    return ours(redis_server, tmp_path, prefix=tmp_path.name)


def _claim_nothing(claims: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalCopy, "claim", lambda _copy, within_s: claims.append(within_s))


def test_an_exception_of_a_signal_handler_does_not_keep_it_from_starting(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[float] = []
    _claim_nothing(claims, monkeypatch)
    listener = cache._store.invalidations  # noqa: SLF001
    for number in range(1, 1000):
        if not interrupt_at(number, lambda: listener.ensure(NO_STATE, 1.0)):
            break
        del claims[:]
        listener.ensure(NO_STATE, 1.0)
        assert len(claims) == 1, f"after an interruption before bytecode {number}"
    else:
        pytest.fail("the operation did not end")


def test_a_signal_handler_may_read_while_it_is_started(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[float] = []
    _claim_nothing(claims, monkeypatch)
    listener = cache._store.invalidations  # noqa: SLF001

    def start() -> None:
        with finalised_everywhere(lambda: listener.ensure(NO_STATE, 1.0)):
            listener.ensure(NO_STATE, 1.0)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert claims


def test_it_ends_with_its_store_and_starts_again(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = LocalCopy.claim
    claims: list[bytes] = []

    def counted(self: LocalCopy, within_s: float) -> bytes | None:
        if (owner := claim(self, within_s)) is not None:
            claims.append(owner)
        return owner

    monkeypatch.setattr(LocalCopy, "claim", counted)
    monkeypatch.setattr("cacheapp.backends.near.listener._END_WITHIN_S", 60.0)
    listener = cache._store.invalidations  # noqa: SLF001
    for _ in range(3):
        del claims[:]
        confirmed(cache)
        assert claims
        thread = listener._thread  # noqa: SLF001
        assert thread is not None
        cache._store.close()  # noqa: SLF001
        assert not thread.is_alive()
        assert listener._connections == []  # noqa: SLF001
        assert cache._copy.environment.current is None  # noqa: SLF001
        cache._store.close()  # noqa: SLF001 (without a thread)


def test_it_takes_no_byte_from_a_file_that_has_its_descriptor(cache: NearCache) -> None:
    """As after code that closes all descriptors, while the thread waits for invalidations."""
    confirmed(cache)
    epoch = cache.stats()["copy_epoch"]
    thread = cache._store.invalidations._thread  # noqa: SLF001
    assert thread is not None
    assert thread.ident is not None
    until(partial(place_in, thread.ident, "_wait"), "the thread to wait")
    (connection,) = cache._store.invalidations._connections  # noqa: SLF001
    number = connection.fileno()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"not for the listener")
        os.dup2(ours.fileno(), number)
        with socket.socket(fileno=number) as taken:
            until(lambda: cache.get("key") or cache.stats()["copy_epoch"] > epoch, "an epoch")
            taken.settimeout(0)
            assert taken.recv(100) == b"not for the listener"
    confirmed(cache)


_READER = """
import json, sys
from django.conf import settings
settings.configure(CACHES={}, SECRET_KEY="x" * 50, CACHEAPP={"STATE_DIR": sys.argv[2]})
from cacheapp.backends import NearCache
from cacheapp.processes.waiting import until
options = {"copy": sys.argv[2], "size_limit": 8 * 2**20, **json.loads(sys.argv[3])}
cache = NearCache(sys.argv[1], {"OPTIONS": options})
until(lambda: cache.get("key") or cache.stats()["copy_hits"], "the copy to be served")
"""
_ENDING = """
print("served", flush=True)
sys.stdin.read()
"""
_STOPPED_IN_A_WRITE = """
import os, signal
cache._copy.environment.write(lambda env, transaction: os.kill(os.getpid(), signal.SIGSTOP))
"""


def test_a_process_that_is_stopped_in_a_write_does_not_keep_others_from_ending(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    def start(script: str) -> subprocess.Popen[bytes]:
        arguments = (redis_server.url, str(tmp_path), json.dumps(PATIENT))
        return subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_env(),
        )

    with start(_READER + _ENDING) as ending:
        assert ending.stdout is not None
        assert ending.stdout.readline() == b"served\n"
        with start(_READER + _STOPPED_IN_A_WRITE) as stopped:
            try:
                os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)
                ending.communicate(timeout=60)
                assert ending.returncode == 0
            finally:
                stopped.kill()
                ending.kill()


def test_the_bound_counts_from_the_sending_of_the_previous_ping(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from a reply, which may have been on its way for long."""
    ping, apply = InvalidationListener._ping, LocalCopy.apply  # noqa: SLF001
    pings: list[tuple[float, float]] = []
    counted_from: list[tuple[float, int]] = []

    def timed(self: InvalidationListener, owner: bytes, previous_sent_s: float | None) -> float:
        began_s = clock.boot_s()
        sent_s = ping(self, owner, previous_sent_s)
        pings.append((began_s, clock.boot_s()))
        return sent_s

    def noted(self: LocalCopy, owner: bytes, keys: Any, **options: Any) -> int:
        if options.get("confirmed"):
            until_s, _lag_s = options["confirmed"]
            counted_from.append((until_s - self.max_staleness, len(pings)))
        return apply(self, owner, keys, **options)

    monkeypatch.setattr(InvalidationListener, "_ping", timed)
    monkeypatch.setattr(LocalCopy, "apply", noted)
    confirmed(cache)
    until(lambda: len(counted_from) > 2, "confirmations")
    for moment_s, number in counted_from:
        began_s, ended_s = pings[number - 1]
        assert began_s <= moment_s <= ended_s
