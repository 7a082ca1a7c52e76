"""ClusterStore: the primitives of `Store` on a Redis Cluster.

One key: as on one server, at the node that has the key. Many keys: one step per slot, all nodes at the
same time. What needs two keys in one step (a lock and its fence, two versions of a key) has them in one
slot, by hash tags.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import redis

from cacheapp.backends.core.counters import BREAKER_OPEN_NOW, BREAKER_OPENED
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.patterns import glob_to_regex
from cacheapp.backends.redis import scripts
from cacheapp.backends.redis.batches import (
    MAX_BATCH_KEYS,
    batches_of,
    in_batches,
    progress,
    run_each,
)
from cacheapp.backends.redis.circuit_breaker import CircuitBreaker
from cacheapp.backends.redis.cluster.executor import ClusterExecutor, Command
from cacheapp.backends.redis.cluster.keys import END, is_own_key, key_slot, lock_keys
from cacheapp.backends.redis.cluster.node import ClusterNode
from cacheapp.backends.redis.cluster.nodes import Address
from cacheapp.backends.redis.cluster.scan import scan, visit_primaries
from cacheapp.backends.redis.cluster.topology import Topology
from cacheapp.backends.redis.connection_pool import outside_of
from cacheapp.backends.redis.encoding import (
    decode_key,
    decode_payload,
    encode_key,
    escape_glob,
    now_ms,
    ttl_ms_or_0,
)
from cacheapp.backends.redis.executor import FailureKind
from cacheapp.backends.redis.listener import Listener
from cacheapp.backends.redis.locks import RedisLocks
from cacheapp.backends.redis.store import RedisStore
from cacheapp.errors import CacheappError, MoveRefused

_READ = FailureKind.READ


class ClusterStore(RedisStore):
    """One process's store on a cluster; `seeds` are the nodes that LOCATION names."""

    _own_executor: ClusterExecutor

    def __init__(
        self,
        seeds: Sequence[Address],
        build_pool: Callable[[str, int], Any],
        build_client: Callable[[], Any],
        name: str,
        patience_s: float,
    ) -> None:
        self._seeds = seeds
        self._build_pool = build_pool
        self._patience_s = patience_s
        super().__init__(build_client, name)

    def _open(self) -> None:
        self._own_client = self._build_client()
        self._down: set[CircuitBreaker] = set()  # those that are open
        topology = Topology(self._seeds, self._open_node, self._name)
        self._own_executor = ClusterExecutor(topology, self._name, self._patience_s)
        self._listened_to: ClusterNode | None = None
        self._listener_failures = 0
        self._own_listener = Listener(self._new_connection, self._is_up, self._listen_elsewhere)
        self._own_locks = RedisLocks(self._own_executor, lock_keys)

    def _open_node(self, host: str, port: int) -> ClusterNode:
        def note(*, opened: bool) -> None:
            (self._down.add if opened else self._down.discard)(breaker)
            for counters in tuple(self.counters):
                counters.set_gauge(BREAKER_OPEN_NOW, int(bool(self._down)))
                counters.add(BREAKER_OPENED, int(opened))

        breaker = CircuitBreaker(f"the cluster node {host}:{port}", note)
        return ClusterNode(self._build_pool(host, port), breaker, host, port)

    # What is published at one node reaches those who listen at any other.

    def _new_connection(self, **changes: Any) -> Any:
        try:
            nodes = self._own_executor.topology.primaries()
        except CacheappError as exc:
            raise redis.ConnectionError(str(exc)) from exc
        up = [node for node in nodes if node.breaker.closed] or nodes
        chosen = os.getpid() + self._listener_failures  # not all processes at the same node
        self._listened_to = up[chosen % len(up)]
        return outside_of(self._listened_to.pool, **changes)

    def _listen_elsewhere(self) -> None:
        self._listener_failures += 1
        self._own_executor.topology.refresh(last=self._listened_to)

    def _is_up(self) -> bool:
        nodes = self._own_executor.topology.known_nodes()
        return not nodes or any(node.breaker.closed for node in nodes)

    # -- two keys --------------------------------------------------------------------------------

    def move(self, source: str, target: str, expected: Payload, payload: Payload) -> bool:
        """Move an entry; `MoveRefused` if its KEY_FUNCTION puts the two keys into different slots."""
        if key_slot(encode_key(source)) != key_slot(encode_key(target)):
            raise MoveRefused(
                f"{source!r} and {target!r} are in different slots of the cluster, between which no "
                "entry moves in one step; nothing was changed. Without KEY_FUNCTION, or with one that "
                "puts the key's own part into a hash tag, all versions of a key are in one slot"
            )
        return super().move(source, target, expected, payload)

    # -- many keys -------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> dict[str, Payload]:
        """Return the payloads; atomic per slot, in parts of 1,000 keys."""
        return self._get_many(keys, partial=False)

    def _look(self, seen: Mapping[str, Payload]) -> Mapping[str, Payload]:
        """Leave out the keys of nodes that are down: only those who wait for these are to see it."""
        return self._get_many(list(seen), partial=True)

    def _get_many(self, keys: Sequence[str], *, partial: bool) -> dict[str, Payload]:
        found: dict[str, Payload] = {}
        for batch in in_batches(keys):
            names = {encode_key(key): key for key in batch}
            replies = self._executor.execute_by_slot(list(names), _get, _READ, partial=partial)
            for part, reply in replies:
                if type(reply) is not list:  # of GET
                    if reply is not None:
                        found[names[part[0]]] = decode_payload(reply)
                    continue
                for key, value in zip(part, reply, strict=True):
                    if value is not None:
                        found[names[key]] = decode_payload(value)
        return found

    def set_many(self, payloads: Mapping[str, Payload], ttl: float | None) -> list[str]:
        """Store all payloads, atomically per slot in parts of 1,000 keys or 16 MiB; return []."""
        run_each(batches_of(payloads), lambda part: self._set_batch(part, ttl), "stored")
        return []

    def _set_batch(self, part: Mapping[str, Any], ttl: float | None) -> int:
        values = {encode_key(key): value for key, value in part.items()}
        lifetime_ms = b"%d" % ttl_ms_or_0(ttl)

        def build(keys: list[bytes]) -> Command:
            if len(keys) == 1:
                deadline = () if ttl is None else (b"PX", lifetime_ms)
                return (b"SET", keys[0], values[keys[0]], *deadline)
            return _script(scripts.SET_MANY, keys, lifetime_ms, *(values[key] for key in keys))

        for _ in self._executor.execute_by_slot(list(values), build):
            pass
        return len(values)

    def _remove_batch(self, keys: Sequence[bytes]) -> int:
        now = b"%d" % now_ms()
        replies = self._executor.execute_by_slot(
            list(dict.fromkeys(keys)), lambda own: _script(scripts.REMOVE, own, now)
        )
        return sum(reply for _, reply in replies)

    def _visible(self, keys: Sequence[bytes]) -> Iterator[bytes]:
        now = b"%d" % now_ms()
        found = self._executor.execute_by_slot(
            keys, lambda own: _script(scripts.VISIBLE, own, now), _READ
        )
        for own, numbers in found:
            yield from (own[number - 1] for number in numbers)

    # -- all keys --------------------------------------------------------------------------------

    def clear(self, prefix: str) -> None:
        """Remove the keys of every version of the prefix. Not atomic."""
        start = f"{prefix}:"
        found = (
            [key for key in keys if is_own_key(key, encode_key(start))]
            for keys in self._batches(escape_glob(start) + "*{:*", start, MAX_BATCH_KEYS)
        )
        run_each(found, self._remove, "removed")

    def flush(self) -> None:
        """Remove every key of the cluster, including those of other applications; atomic per node."""
        with progress("nodes were emptied") as steps:

            def empty(node: ClusterNode) -> tuple[()]:
                node.execute(b"FLUSHDB", b"ASYNC")
                steps.done += 1
                return ()

            for _ in visit_primaries(self._executor.topology, empty):
                pass

    def _batches(self, glob: str, prefix: str, batch: int) -> Iterator[list[bytes]]:
        start = encode_key(prefix)
        end = b""
        matches: Callable[[str], Any] | None = None
        if prefix.endswith("{:"):  # a version of `tagged_key`, whose names end with the tag
            name, end = glob[len(escape_glob(prefix)) :], END.encode()
            if "[" in name or name.endswith(
                "\\"
            ):  # may be unclosed: then it would match the end too
                matches, glob = glob_to_regex(name).fullmatch, escape_glob(prefix) + "*"
            glob += END
        visit = partial(scan, glob=encode_key(glob), count=max(1, batch))
        for keys in visit_primaries(self._executor.topology, visit):
            own = [key for key in keys if key.startswith(start) and key.endswith(end)]
            if matches is not None:
                names = ((key, decode_key(key[len(start) : -len(end)])) for key in own)
                own = [key for key, text in names if matches(text)]
            if own:
                yield own

    @property
    def _executor(self) -> ClusterExecutor:
        found = self.executor
        assert isinstance(found, ClusterExecutor)  # noqa: S101 (for the type checker)
        return found


def _get(keys: list[bytes]) -> Command:
    return (b"GET", keys[0]) if len(keys) == 1 else (b"MGET", *keys)


def _script(script: scripts.Script, keys: Sequence[bytes], *args: bytes) -> Command:
    return (b"EVALSHA", script.sha, b"%d" % len(keys), *keys, *args)
