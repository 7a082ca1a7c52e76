"""No read returns a value that was overwritten longer ago than the bound, whatever happens."""

import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import pause, until
from tests.integration.backends.near.parts import (
    Writer,
    confirmed,
    kill_tracking,
    ours,
    raw,
    stalest_s,
    start_worker,
)

_STALENESS_S = 0.5
_SECONDS = 3.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that may be stopped."""
    with RedisServer() as started:
        yield started.start()


@dataclasses.dataclass(frozen=True)
class _Site:
    """What a fault meets: a server, the directory of the copy, its readers, and another machine."""

    server: RedisServer
    directory: Path
    readers: list[subprocess.Popen[bytes]]
    writer: Writer

    def go_on(self) -> None:
        """Wait until the other machine has written a few times, or a reader has ended."""
        wanted = len(self.writer.overwritten_s) + 10
        until(
            lambda: len(self.writer.overwritten_s) >= wanted or self.readers[0].poll() is not None,
            "some writes",
            30,
        )


def _nothing(_site: _Site) -> None:
    pass


def _kill_the_connection(site: _Site) -> None:
    kill_tracking(site.server)


def _empty_the_database(site: _Site) -> None:
    with raw(site.server) as client:
        client.flushall()


def _freeze_the_server(site: _Site) -> None:
    site.server.send(signal.SIGSTOP)
    pause(2 * _STALENESS_S)
    site.server.send(signal.SIGCONT)


def _freeze_the_listener(site: _Site) -> None:
    cache = ours(site.server, site.directory, max_staleness=_STALENESS_S)
    pid = cache.stats()["copy_listener_pid"]
    if pid in [reader.pid for reader in site.readers]:
        os.kill(pid, signal.SIGSTOP)
        pause(2 * _STALENESS_S)
        os.kill(pid, signal.SIGCONT)


def _restart_the_server(site: _Site) -> None:
    site.server.send(signal.SIGKILL)
    assert site.server.process is not None
    site.server.process.wait()
    site.server.start()


_FAULTS: dict[str, Callable[[_Site], None]] = {
    "nothing": _nothing,
    "connection killed": _kill_the_connection,
    "database emptied": _empty_the_database,
    "server frozen": _freeze_the_server,
    "listener frozen": _freeze_the_listener,
    "server restarted": _restart_the_server,
}


@pytest.mark.parametrize("fault", list(_FAULTS))
def test_no_read_is_older_than_the_bound(server: RedisServer, tmp_path: Path, fault: str) -> None:
    results = [tmp_path / "first.json", tmp_path / "second.json"]
    workers = [start_worker(server, tmp_path, _STALENESS_S, _SECONDS, path) for path in results]
    with Writer(server, silence_s=2 * _STALENESS_S) as writer:
        until(lambda: len(writer.overwritten_s) > 5, "some writes", 30)
        site = _Site(server, tmp_path, workers, writer)
        while workers[0].poll() is None:
            _FAULTS[fault](site)
            site.go_on()
        assert [worker.wait(60) for worker in workers] == [0, 0]
    found: list[Any] = [json.loads(path.read_text()) for path in results]
    reads = [read for each in found for read in each["reads"]]
    assert len(reads) > 100
    assert stalest_s(writer, reads) <= _STALENESS_S
    assert found[0]["stats"]["copy_hits"] > 0  # else this has shown nothing


def test_a_listener_that_was_killed_is_replaced(server: RedisServer, tmp_path: Path) -> None:
    worker = start_worker(server, tmp_path, _STALENESS_S, 60, tmp_path / "unused.json")
    cache = ours(server, tmp_path, max_staleness=_STALENESS_S)
    with raw(server) as client:
        cache.set("number", {"number": 1})
        until(lambda: cache.stats()["copy_listener_pid"] == worker.pid, "the worker to listen", 30)
        confirmed(cache, "number")
        epoch = cache.stats()["copy_epoch"]
        worker.kill()
        worker.wait()
        client.delete("near:1:number")
        until(lambda: cache.get("number") is None, "the bound", 30)
        confirmed(cache, "number")
    assert cache.stats()["copy_listener_pid"] == os.getpid()
    assert cache.stats()["copy_epoch"] > epoch


def test_a_server_that_is_gone_is_noticed_within_the_bound(
    server: RedisServer, tmp_path: Path
) -> None:
    cache = ours(server, tmp_path, max_staleness=_STALENESS_S, on_error="miss")
    cache.set("key", "value")
    confirmed(cache, "key")
    server.send(signal.SIGKILL)
    until(lambda: cache.get("key") is None, "the copy to be served no longer", 30)
