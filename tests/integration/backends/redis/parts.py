"""Helpers of the RedisCache tests: a private Redis, and a proxy that loses replies on demand."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import pytest
import redis

from cacheapp.backends import RedisCache
from cacheapp.backends.redis.circuit_breaker import FAILURES_TO_OPEN
from cacheapp.errors import OutcomeUnknown, StoreUnavailable
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.contract.backends import PATIENT
from tests.ports import free_port


def ours(url: str, prefix: str = "ours", **options: Any) -> RedisCache:
    """Return a patient RedisCache; equal options share one store, as aliases do."""
    return RedisCache(url, {"KEY_PREFIX": prefix, "OPTIONS": {**PATIENT, **options}})


def raw(server: RedisServer) -> redis.Redis:
    """Return a plain client of the server, to see what is really stored."""
    return redis.Redis(unix_socket_path=str(server.socket))


def sent(server: RedisServer, work: Callable[[], Any]) -> list[str]:
    """Return the commands that clients sent to the server during `work`, in order.

    Excludes the commands of a connection's handshake: the pool decides when it connects.
    """
    names: list[str] = []
    with raw(server) as client, raw(server) as other:
        client.ping()  # connects now, so that the monitor does not see the handshake
        with other.monitor() as monitor:
            work()
            client.echo("the end")
            for command in monitor.listen():
                if "the end" in command["command"]:
                    return names
                name = command["command"].split()[0].upper()
                if command["client_type"] != "lua" and name not in {"HELLO", "CLIENT", "SELECT"}:
                    names.append(name)
    raise AssertionError("the server ended")


OPERATIONS: dict[str, Callable[[RedisCache], Any]] = {
    "get": lambda cache: cache.get("key"),
    "get_many": lambda cache: cache.get_many(["key"]),
    "has_key": lambda cache: cache.has_key("key"),
    "ttl": lambda cache: cache.ttl("key"),
    "keys": lambda cache: cache.keys("*"),
    "set": lambda cache: cache.set("key", "value"),
    "set_many": lambda cache: cache.set_many({"key": "value"}),
    "add": lambda cache: cache.add("key", "value"),
    "incr": lambda cache: cache.incr("key"),
    "incr_version": lambda cache: cache.incr_version("key"),
    "touch": lambda cache: cache.touch("key", 5),
    "persist": lambda cache: cache.persist("key"),
    "delete": lambda cache: cache.delete("key"),
    "delete_many": lambda cache: cache.delete_many(["key"]),
    "delete_pattern": lambda cache: cache.delete_pattern("*"),
    "clear": lambda cache: cache.clear(),
}


def open_the_breaker(cache: RedisCache) -> None:
    """Fail until calls are refused."""
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            cache.get("key")


class Wire:
    """A TCP proxy of a real Redis that forwards everything until a test makes it lose data.

    `_lock` guards all but the threads. `lose`: so many requests arrive whose answers do not, and their
    connections are cut, after `before_cut`. `lost` counts those answers.
    """

    before_cut: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, server: RedisServer) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.lost = 0
        self._to_lose = 0
        self._target = str(server.socket)
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs, _ = self._listener.accept()
                ours = socket.socket(socket.AF_UNIX)
                try:
                    ours.connect(self._target)
                except OSError:  # the server is down
                    _close(theirs, ours)
                    continue
                with self._lock:
                    self._sockets |= {theirs, ours}
                for work, source, target in (
                    (self._requests, theirs, ours),
                    (self._answers, ours, theirs),
                ):
                    thread = threading.Thread(target=work, args=(source, target))
                    thread.start()
                    self._threads.append(thread)

    def _requests(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        _cut(source, target)

    def lose(self, answers: int = 1) -> None:
        """Lose the next replies, and forward the later ones."""
        with self._lock:
            self._to_lose = answers

    def until_cut(self) -> None:
        """Wait until the clients' connections are cut, which were to a server that has ended."""
        _accepting, *others = self._threads
        until(lambda: not any(each.is_alive() for each in others), "the connections to be cut")

    def _loses_one(self) -> bool:
        with self._lock:
            if not self._to_lose:
                return False
            self._to_lose -= 1
            self.lost += 1
            return True

    def _answers(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._loses_one():
                    self.before_cut()
                    break
                target.sendall(data)
        _cut(source, target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _cut(self._listener)
        with self._lock:
            _cut(*self._sockets)
        for thread in self._threads:
            thread.join(60)
        _close(self._listener, *self._sockets)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        each.close()


def _cut(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class SentinelServer(RedisServer):
    """A real Sentinel that watches one primary; so many must agree on its death."""

    def __init__(self, primary_port: int, quorum: int = 1) -> None:
        super().__init__()
        self.port = free_port()
        self._primary_port = primary_port
        self._quorum = quorum

    def start(self, within_s: float = 60.0) -> Self:
        """Start it; return when it replies."""
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor cached 127.0.0.1 {self._primary_port} {self._quorum}\n"
            # No pause of a busy machine counts as a failure, or ends a promotion half-way.
            "sentinel down-after-milliseconds cached 60000\n"
            "sentinel failover-timeout cached 60000\n"
        )
        self._spawn([self._binary, str(config), "--sentinel"])
        until(self.knows_replica, "the sentinel to know primary and replica", within_s)
        return self

    def suspect_after(self, milliseconds: int) -> None:
        """Take a primary for dead after a silence of that length, from now on.

        If the replica is silent too at that moment, it is promoted at the next attempt: 20 s later.
        """
        with redis.Redis(port=self.port) as client:
            words = ("down-after-milliseconds", milliseconds, "failover-timeout", 10_000)
            client.execute_command("SENTINEL", "SET", "cached", *words)

    def primary_port(self) -> int:
        """Return the port of the primary that it names."""
        with redis.Redis(port=self.port) as client:
            return int(client.sentinel_get_master_addr_by_name("cached")[1])

    def knows_others(self, count: int) -> bool:
        """Return True if the sentinel knows so many others."""
        with redis.Redis(port=self.port) as client:
            return len(client.sentinel_sentinels("cached")) == count

    def knows_replica(self) -> bool:
        """Return True if the sentinel knows the replica."""
        with redis.Redis(port=self.port) as client:
            try:
                return bool(client.sentinel_slaves("cached"))
            except redis.RedisError:
                return False


@dataclass
class Watched:
    """A primary, its replica and the Sentinel that watches them."""

    primary: RedisServer
    replica: RedisServer
    sentinel: SentinelServer

    def cache(self, **options: Any) -> RedisCache:
        """Return a cache that gets the primary from the sentinel."""
        return RedisCache(
            "redis://cached/0",
            {
                "KEY_PREFIX": "ours",
                "OPTIONS": {
                    "SENTINELS": [("127.0.0.1", self.sentinel.port)],
                    **PATIENT,
                    **options,
                },
            },
        )

    def fail_over(self) -> bool:
        """Request the promotion of the replica; return True if the sentinel accepts."""
        with redis.Redis(port=self.sentinel.port) as client:
            try:
                client.execute_command("SENTINEL", "FAILOVER", "cached")
            except redis.ResponseError:
                return False  # it does not know the replica well enough yet
            return True


@contextlib.contextmanager
def sentinel_site() -> Iterator[Watched]:
    """Start a primary, a replica that follows it, and a Sentinel that knows both."""
    first, second = free_port(), free_port()
    with (
        RedisServer(["--port", str(first), "--bind", "127.0.0.1"]) as primary,
        RedisServer(["--port", str(second), "--bind", "127.0.0.1"]) as replica,
        SentinelServer(first) as sentinel,
    ):
        primary.start()
        replica.start()
        with raw(replica) as client:
            client.replicaof("127.0.0.1", str(first))
            until(lambda: client.info()["master_link_status"] == "up", "the replica to follow")
        sentinel.start()
        yield Watched(primary, replica, sentinel)
