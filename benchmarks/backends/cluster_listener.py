"""What the listener of a NearCache costs on a large cluster: `python -m benchmarks.backends.cluster_listener`.

Another process replies as all nodes would, one connection for each: to CLUSTER NODES and CLUSTER
INFO, over a socket file. Between rounds only the times of PINGs and PONGs change, as on a cluster at
rest; one PING in a hundred has no reply yet. A round is what the listener does five times in each
`max_staleness`: all questions, all replies, the comparison with the view of the epoch. The time is that
of the thread's CPU, which other programs do not add to. `parsed` parses each reply, as the listener
does when an epoch begins; `read` compares nothing. Not measured: the nodes, a network between, and the
invalidations.
"""

import contextlib
import functools
import multiprocessing
import os
import random
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import redis

from benchmarks.measuring import (
    Samples,
    command_line,
    progress,
    set_up_django,
    summaries,
    table,
    take_turns,
    write_report,
)

COMPARED, PARSED, READ = ("compared", "parsed", "read")
_VARIANTS = 8  # of what a node replies, in turn
_WAITING = 0.01  # of the PINGs
_SLOTS = 16384
_ROUNDS_PER_S = 5  # with `max_staleness` 1.0


def main() -> int:
    """Measure, print the medians and what they mean in percent of a CPU, and return 0."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--nodes", type=int, nargs="*", default=[30, 100, 300])
    asked = parser.parse_args()
    set_up_django()
    samples: Samples = {}
    for nodes in asked.nodes:
        samples[f"{nodes} nodes"] = _measure(nodes, asked.rounds)
        progress(f"{nodes} nodes")
    results = summaries(samples)
    print(*table("microseconds of CPU for a round", results, PARSED), sep="\n")
    percent = {
        size: {name: by_name[name]["median"] * _ROUNDS_PER_S / 1e4 for name in by_name}
        for size, by_name in results.items()
    }
    for size, by_name in percent.items():
        shown = ", ".join(f"{name} {value:.2f} %" for name, value in by_name.items())
        print(f"{size}, {_ROUNDS_PER_S} rounds/s, of a CPU: {shown}")
    figures = {"percent": percent, "microseconds": results, "samples": samples}
    write_report(asked.json, "backends.cluster_listener", ["redis", "hiredis"], figures)
    return 0


def _measure(nodes: int, rounds: int) -> dict[str, list[float]]:
    """Return the CPU time of each round in microseconds, for each way to judge the replies."""
    with _connected(nodes) as connections:
        ask = functools.partial(_ask, connections)
        judges = _judges(ask())
        turns = {name: functools.partial(_turn, ask, judge) for name, judge in judges.items()}
        take_turns(turns, 2)
        return take_turns(turns, rounds)


@contextlib.contextmanager
def _connected(nodes: int) -> Iterator[list[Any]]:
    """Connect to as many nodes as another process stands for."""
    from cacheapp.backends.near.tracking import TrackingConnection  # noqa: PLC0415 (needs the settings)

    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        path = f"{directory}/nodes"
        listening.bind(path)
        listening.listen(nodes)
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=_serve, args=(listening, nodes))
        process.start()
        pool = redis.ConnectionPool(redis.UnixDomainSocketConnection, path=path)
        connections = [TrackingConnection(pool, []) for _ in range(nodes)]
        try:
            for connection in connections:
                connection.connect()
            yield connections
        finally:
            for connection in connections:
                connection.close()
            pool.disconnect()
            process.terminate()
            process.join()


def _ask(connections: list[Any]) -> list[Any]:
    """Ask every node, and return what each replied."""
    from cacheapp.backends.near.cluster import TrackedCluster  # noqa: PLC0415 (needs the settings)

    for connection in connections:
        connection.send(*TrackedCluster.questions)
    return [[each.read_reply() for _ in range(2)] for each in connections]


def _judges(first: list[Any]) -> dict[str, Callable[[list[Any]], None]]:
    """Return what is done with the replies of a round, by its name; `first` are those of the first one."""
    from cacheapp.backends.near import cluster_view  # noqa: PLC0415 (needs the settings)
    from cacheapp.backends.near.cluster import TrackedCluster  # noqa: PLC0415

    cluster = TrackedCluster(None, lambda _host, _port: None, b"")  # type: ignore[arg-type]
    view = cluster_view.parse(*first[0]).view
    cluster.begin(view)
    by_id = sorted(first, key=lambda replies: cluster_view.parse(*replies).id)
    order = [first.index(replies) for replies in by_id]

    def compare(replies: list[Any]) -> None:
        cluster.check([replies[number] for number in order])

    def parse(replies: list[Any]) -> None:
        assert all(cluster_view.parse(*each).view == view for each in replies)  # noqa: S101

    return {COMPARED: compare, PARSED: parse, READ: lambda _replies: None}


def _turn(ask: Callable[[], list[Any]], judge: Callable[[list[Any]], None]) -> list[float]:
    began_ns = time.thread_time_ns()
    judge(ask())
    return [(time.thread_time_ns() - began_ns) / 1000]


# -- the other process -----------------------------------------------------------------------------


def _serve(listening: socket.socket, nodes: int) -> None:
    """Reply on each connection as one node, until this process is terminated."""
    replies = _replies(nodes)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                connection, _ = listening.accept()
                node = (hiredis.Reader(), replies.pop(), [0])
                selector.register(connection, selectors.EVENT_READ, node)
            else:
                _reply(key.fileobj, *key.data)


def _reply(connection: Any, reader: Any, said: list[bytes], place: list[int]) -> None:
    data = connection.recv(65536)
    if not data:
        os._exit(0)
    reader.feed(data)
    while (command := reader.gets()) is not False:
        if command[0] == b"HELLO":
            connection.sendall(b"%1\r\n$5\r\nproto\r\n:3\r\n")
        elif command == [b"CLUSTER", b"NODES"]:
            place[0] += 1
            connection.sendall(said[place[0] % _VARIANTS])
        elif command == [b"CLUSTER", b"INFO"]:
            connection.sendall(_INFO)
        else:
            connection.sendall(b"+OK\r\n")


def _bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


_STATISTICS = "".join(f"cluster_stats_messages_{number}_sent:123456\r\n" for number in range(12))
_INFO = _bulk(
    "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n"
    "cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:300\r\ncluster_size:300\r\n"
    f"cluster_current_epoch:300\r\ncluster_my_epoch:7\r\n{_STATISTICS}"
)


def _replies(nodes: int) -> list[list[bytes]]:
    """Return for each node what it says in turn; each has an order of the nodes of its own."""
    chance = random.Random(7)
    ids = [f"{chance.getrandbits(160):040x}" for _ in range(nodes)]
    found = []
    for own in range(nodes):
        order = chance.sample(range(nodes), nodes)
        found.append([_bulk(_nodes(ids, own, order, chance)) for _ in range(_VARIANTS)])
    return found


def _nodes(ids: list[str], own: int, order: list[int], chance: random.Random) -> str:
    now_ms = 1_700_000_000_000 + chance.randrange(10**9)
    lines = []
    for number in order:
        first, last = (_SLOTS * edge // len(ids) for edge in (number, number + 1))
        ping = now_ms if chance.random() < _WAITING else 0
        lines.append(
            f"{ids[number]} 10.0.{number // 250}.{number % 250}:6379@16379,node-{number}.example "
            f"{'myself,' if number == own else ''}master - {ping} {now_ms - chance.randrange(10**4)} "
            f"{number + 1} connected {first}-{last - 1}\n"
        )
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
