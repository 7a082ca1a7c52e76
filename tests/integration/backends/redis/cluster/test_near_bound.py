"""No read of NearCache is older than its bound, whatever the cluster does: all faults, two machines."""

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from cacheapp import clock
from cacheapp.backends.redis.cluster.keys import key_slot
from cacheapp.processes.redis_cluster import ClusterServer, PrivateCluster
from cacheapp.processes.servers import child_env
from cacheapp.processes.waiting import pause, until
from tests.integration.backends.redis.cluster.parts import another

BOUND_S = 0.5
KEYS = 8
BURST = 2  # numbers
READER = """
import json, sys, time
from django.conf import settings
settings.configure(CACHES={}, SECRET_KEY=sys.argv[4], CACHEAPP={"STATE_DIR": sys.argv[2] + "/state"})
from cacheapp.backends import NearCache
from cacheapp.errors import CacheappError
location, directory, bound_s, _, keys, results, broken = sys.argv[1:]
exec(broken)
options = {"copy": directory + "/copy", "size_limit": 8 * 2**20, "max_staleness": float(bound_s),
           "SOCKET_TIMEOUT": 0.5}
cache = NearCache(location, {"KEY_PREFIX": "near", "OPTIONS": options})
with open(results, "w") as file:
    while True:
        hits = cache.stats()["copy_hits"]
        for number in [*range(int(keys))] * 10:
            began_s = time.monotonic()
            try:
                found = cache.get(f"key{number}")
            except CacheappError:
                continue
            print(json.dumps([number, began_s, found, hits]), file=file)
            time.sleep(0.001)
        file.flush()
"""
Acknowledged = tuple[int, float]
Read = tuple[int, float, int | None, int]
Fault = Callable[[PrivateCluster, Callable[[], None]], None]


class Writer(threading.Thread):
    """Writes growing numbers; notes each one that a replica has too, and when that was known.

    Bursts and silence take turns: another write soon would repair what a lost invalidation left.
    """

    def __init__(self, cluster: PrivateCluster) -> None:
        super().__init__(daemon=True)
        self._urls = [node.url for node in cluster.nodes]
        self._due = threading.Event()
        self._ending = False
        self.written: dict[int, list[Acknowledged]] = {key: [] for key in range(KEYS)}

    def run(self) -> None:
        clients = [
            redis.Redis.from_url(url, socket_timeout=0.5, retry=Retry(NoBackoff(), 0), protocol=2)
            for url in self._urls
        ]
        for value in itertools.count(1):
            for key in range(KEYS):
                any(self._write(client, key, value) for client in clients)
            if value % BURST == 0:
                self._due.wait(4 * BOUND_S)
                self._due.clear()
            if self._ending:
                return

    def burst(self) -> None:
        """Write now."""
        self._due.set()

    def _write(self, client: redis.Redis, key: int, value: int) -> bool:
        try:
            # In one pipeline, and so on one connection: WAIT is about its writes.
            pipeline = client.pipeline(transaction=False)
            pipeline.set(f"near:1{{:key{key}}}", value)
            pipeline.execute_command("WAIT", 1, 300)  # type: ignore[no-untyped-call]
            replicas = pipeline.execute()[1]
        except redis.RedisError:
            return False
        if replicas:
            self.written[key].append((value, clock.monotonic_s()))
        return True

    def end(self) -> None:
        self._ending = True
        self._due.set()
        self.join(60)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    """A cluster that takes a silent node for dead after a second."""
    with PrivateCluster(node_timeout_ms=1000) as cluster:
        yield cluster.start()


@contextlib.contextmanager
def readers(cluster: PrivateCluster, directory: Path, broken: str) -> Iterator[list[Path]]:
    """Start two processes, each a machine with a copy of its own; yield the files of what they read."""
    machines = [directory / name for name in ("a", "b")]
    with contextlib.ExitStack() as stack:
        for home in machines:
            home.mkdir()
            arguments = (cluster.url, home, BOUND_S, settings.SECRET_KEY, KEYS, home / "reads")
            process = subprocess.Popen(
                [sys.executable, "-c", READER, *map(str, arguments), broken], env=child_env()
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield [home / "reads" for home in machines]


def reads_of(path: Path) -> list[Read]:
    """Return what a reader has written: key, begin, value, and the hits of its copy before."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]


def hits_of(path: Path) -> int:
    """Return how many reads the copy has served."""
    reads = reads_of(path)
    return reads[-1][3] if reads else 0


def hand_over(cluster: PrivateCluster, burst: Callable[[], None]) -> None:
    """Let each primary hand over to its replica."""
    for primary in cluster.primaries():
        cluster.fail_over(primary)
        burst()


def move_slots(cluster: PrivateCluster, burst: Callable[[], None]) -> None:
    """Move the slot of each key to another primary, and back."""
    for _ in range(2):
        for slot in slots():
            cluster.move(slot, another(cluster, cluster.owner(slot)))
            burst()


def migrate(cluster: PrivateCluster, burst: Callable[[], None]) -> None:
    """Move the slot of each key in one step, which no node shows in CLUSTER NODES before its end."""
    for slot in slots():
        owner = cluster.owner(slot)
        target = another(cluster, owner)
        try:
            owner.cluster("MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        except redis.ResponseError as exc:
            pytest.skip(f"this server moves keys one by one: {exc}")
        until(lambda slot=slot, to=target: cluster.owner(slot) is to, "the migration", 60)  # type: ignore[misc]
        burst()


def slots() -> list[int]:
    return sorted({key_slot(b"near:1{:key%d}" % key) for key in range(KEYS)})


def take_over(cluster: PrivateCluster, burst: Callable[[], None]) -> None:
    """Let a replica take over without a vote, while its primary serves."""
    primary = cluster.owner(slots()[0])
    replica = cluster.replica_of(primary)
    replica.cluster("FAILOVER", "TAKEOVER")
    burst()
    until(lambda: not primary.is_primary(), "the old primary to follow", 60)


def stop(cluster: PrivateCluster, burst: Callable[[], None]) -> None:
    """Stop a primary until another one is elected; it wakes as if it were one still."""
    primary = cluster.owner(slots()[0])
    replica = cluster.replica_of(primary)
    primary.send(signal.SIGSTOP)
    try:
        until(replica.is_primary, "the election", 60)
        burst()
        pause(2 * BOUND_S)
    finally:
        primary.send(signal.SIGCONT)
    burst()
    until(primary.follows, "the old primary to follow", 60)


def kill(cluster: PrivateCluster, burst: Callable[[], None]) -> None:
    """Kill a primary, and start it again when another one is elected."""
    primary = cluster.owner(slots()[-1])
    replica = cluster.replica_of(primary)
    primary.kill()
    until(replica.is_primary, "the election", 60)
    burst()
    pause(2 * BOUND_S)
    cluster.revive(primary)


def add(cluster: PrivateCluster, burst: Callable[[], None]) -> None:
    """Add a primary, give it the slot of a key, and take it back."""
    slot = slots()[0]
    former = cluster.owner(slot)
    with ClusterServer(len(cluster.nodes), 1000, [], cluster.nodes[0].password) as new:
        new.start()
        cluster.nodes.append(new)
        cluster.nodes[0].meet(new)
        cluster.until_complete()
        cluster.move(slot, new)
        burst()
        pause(4 * BOUND_S)
        cluster.move(slot, former)
        burst()
        cluster.nodes.remove(new)
        for node in cluster.nodes:
            node.cluster("FORGET", new.id)


def too_old(cluster: PrivateCluster, directory: Path, fault: Fault, broken: str = "") -> list[Read]:
    """Return the reads that break the bound, while the fault happens three times."""
    writer = Writer(cluster)

    def await_hits() -> None:
        before = {path: hits_of(path) for path in paths}
        until(lambda: all(hits_of(path) > before[path] for path in paths), "hits of both", 60)

    with readers(cluster, directory, broken) as paths:
        writer.start()
        try:
            for _ in range(3):
                await_hits()
                fault(cluster, writer.burst)
                pause(4 * BOUND_S)
            await_hits()
        finally:
            writer.end()
    reads = [read for path in paths for read in reads_of(path)]
    old = [read for read in reads if is_old(read, writer.written)]
    hits = sum(map(hits_of, paths))
    writes = sum(map(len, writer.written.values()))
    print(f"\n{fault.__name__}: {len(old)} of {len(reads)} reads, {hits} hits, {writes} writes")
    return old


def is_old(read: Read, written: dict[int, list[Acknowledged]]) -> bool:
    """Return True if a newer number was acknowledged more than the bound before the read began."""
    key, began_s, value, _ = read
    due = [number for number, at_s in written[key] if at_s < began_s - BOUND_S]
    return bool(due) and (value or 0) < due[-1]


@pytest.mark.soak
@pytest.mark.parametrize(
    "fault",
    [hand_over, move_slots, migrate, take_over, stop, kill, add],
    ids=lambda one: str(one.__name__),
)
def test_no_read_is_older_than_the_bound(
    cluster: PrivateCluster, tmp_path: Path, fault: Fault
) -> None:
    old = too_old(cluster, tmp_path, fault)
    assert not old, old[:5]


ONE_TRACKED = """
from cacheapp.backends.near.cluster import TrackedCluster
from cacheapp.backends.near.tracking import TrackingConnection
track, connect = TrackingConnection.track, TrackedCluster._connect_to
TrackingConnection.track = lambda self, prefix: None
def connect_to(self, member, addresses, connections, messages):
    connect(self, member, addresses, connections, messages)
    if len(connections) == 1:
        track(connections[0], self._prefix)
TrackedCluster._connect_to = connect_to
"""


@pytest.mark.soak
def test_a_copy_that_follows_one_node_only_is_found(
    cluster: PrivateCluster, tmp_path: Path
) -> None:
    assert too_old(cluster, tmp_path, hand_over, ONE_TRACKED)
