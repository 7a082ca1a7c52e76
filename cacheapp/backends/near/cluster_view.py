"""What one node of a cluster says of all nodes: the part of CLUSTER NODES and CLUSTER INFO that decides. Pure.

`docs/near-cache.md` proves what follows from equal views of all nodes.
"""

import re
import zlib
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

from cacheapp.backends.redis.cluster.keys import SLOTS
from cacheapp.backends.redis.cluster.nodes import (
    Address,
    NodeEntry,
    SlotRange,
    own_entry,
    parse_nodes,
)
from cacheapp.errors import StoreUnavailable

_EPOCH = re.compile(rb"^cluster_current_epoch:([0-9]+)\r?$", re.MULTILINE)
_NUMBER = "H"  # of a node in the record of owners: two bytes


class Member(NamedTuple):
    """A node; `failed` if the primaries have agreed that it is down.

    The configuration epoch of a primary grows when it takes slots over. That of a replica, and its slots, say
    nothing.
    """

    id: bytes
    is_primary: bool
    failed: bool
    config_epoch: int
    slots: tuple[SlotRange, ...]


class View(NamedTuple):
    """The nodes, and the cluster's epoch, which grows at a node before it votes or takes slots over."""

    current_epoch: int
    members: frozenset[Member]

    def live(self) -> list[Member]:
        """Return the nodes that are not failed, in the order of their ids."""
        return sorted(member for member in self.members if not member.failed)

    def primaries(self) -> frozenset[bytes]:
        """Return the ids of the live primaries, those without slots too."""
        return frozenset(member.id for member in self.members if is_tracked(member))

    def has_majority(self) -> bool:
        """Return True if more than half of the primaries with slots are live: without them none is elected."""
        voters = [member for member in self.members if member.slots]
        return 2 * sum(not member.failed for member in voters) > len(voters)


class Statement(NamedTuple):
    """The view of the node `id`, and the nodes to which it hands over slots."""

    id: bytes
    view: View
    targets: frozenset[bytes]


def is_tracked(member: Member) -> bool:
    """Return True if a node may execute writes, also if they are only of slots that it is given."""
    return member.is_primary and not member.failed


def parse(nodes: Any, info: Any) -> Statement:
    """Return what the replies to CLUSTER NODES and CLUSTER INFO say; `StoreUnavailable` if it is not clear."""
    entries = parse_nodes(nodes)
    own = own_entry(entries)
    members = frozenset(_member(entry) for entry in entries if entry.is_member)
    targets = frozenset(target for _, target in own.leaving)
    return Statement(own.id, View(current_epoch(info), members), targets)


def _member(entry: NodeEntry) -> Member:
    if not entry.is_primary:
        return Member(entry.id, is_primary=False, failed=entry.has_failed, config_epoch=0, slots=())
    return Member(entry.id, True, entry.has_failed, entry.config_epoch, entry.slots)  # noqa: FBT003


def current_epoch(info: Any) -> int:
    """Return the cluster's epoch in a reply to CLUSTER INFO."""
    found = _EPOCH.search(info) if isinstance(info, bytes) else None
    if found is None:
        raise StoreUnavailable("the reply to CLUSTER INFO has no epoch")
    return int(found[1])


def addresses(nodes: Any, preferred: Mapping[bytes, Address]) -> dict[bytes, Address]:
    """Return the address of each node in CLUSTER NODES; the host may be empty, and the port 0.

    `preferred`: those of CLUSTER SLOTS, which names only nodes with slots and their replicas. If they
    are host names, so are those of the others: a certificate may have nothing else.
    """
    entries = parse_nodes(nodes)
    by_name = any(
        entry.hostname == preferred[entry.id][0] != "" for entry in entries if entry.id in preferred
    )
    chosen = {
        entry.id: (entry.hostname if by_name and entry.hostname else entry.host, entry.port)
        for entry in entries
    }
    return {**chosen, **preferred}


def pack_owners(view: View) -> bytes:
    """Return which live primary has which slots, for `unpack_owners`.

    A copy may be as small as 1 MiB. However the slots are split, this is at most a number for each slot (32 KiB)
    and an id for each primary (41 bytes), before it is compressed.
    """
    members = [member for member in view.live() if member.slots]
    numbers = array(_NUMBER, bytes(2 * SLOTS))  # 0: none
    for number, member in enumerate(members, 1):
        for first, last in member.slots:
            numbers[first : last + 1] = array(_NUMBER, [number]) * (last + 1 - first)
    return zlib.compress(numbers.tobytes() + b" ".join(member.id for member in members))


def unpack_owners(packed: bytes) -> list[bytes]:
    """Return the id of the node of each slot; `b""` if it has none, or if there is no record."""
    if not packed:
        return [b""] * SLOTS
    unpacked = zlib.decompress(packed)
    numbers = array(_NUMBER, unpacked[: 2 * SLOTS])
    ids = [b"", *unpacked[2 * SLOTS :].split(b" ")]
    return [ids[number] for number in numbers]
