"""What one node of a cluster says of all nodes: the part of CLUSTER NODES and CLUSTER INFO that decides. Pure.

`docs/near-cache.md` proves what follows from equal views of all nodes.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

from cacheapp.backends.redis.cluster.keys import SLOTS

_RANGE = struct.Struct("<HH40s")
_EPOCH = b"cluster_current_epoch:"
Address = tuple[str, int]


class Member(NamedTuple):
    """A node; `failed` if the primaries have agreed that it is down.

    The configuration epoch of a primary grows when it takes slots over. Slots are as CLUSTER NODES
    writes them: `0-5460`, or `7`.
    """

    id: bytes
    is_primary: bool
    failed: bool
    config_epoch: int
    slots: tuple[bytes, ...]


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


def parse(nodes: bytes, info: bytes) -> Statement:
    """Return what the replies to CLUSTER NODES and CLUSTER INFO say.

    A node that is in a handshake is none yet: it has no vote, no replicas, and is given no slots.
    """
    own, members, targets = b"", [], set()
    for line in nodes.splitlines():
        name, _, flags, _, _, _, config_epoch, _, *words = line.split()
        found = flags.split(b",")
        if b"handshake" in found:
            continue
        if b"myself" in found:
            own = name
            targets |= {word.strip(b"[]").partition(b"->-")[2] for word in words if b"->-" in word}
        is_primary = b"master" in found
        slots = tuple(word for word in words if not word.startswith(b"[")) if is_primary else ()
        epoch = int(config_epoch) if is_primary else 0
        members.append(Member(name, is_primary, b"fail" in found, epoch, slots))
    (current,) = (line for line in info.splitlines() if line.startswith(_EPOCH))
    view = View(int(current.removeprefix(_EPOCH)), frozenset(members))
    return Statement(own, view, frozenset(targets))


def addresses(nodes: bytes, preferred: Mapping[bytes, Address]) -> dict[bytes, Address]:
    """Return the address of each node in CLUSTER NODES; the host may be empty.

    `preferred`: those of CLUSTER SLOTS, which names only nodes with slots and their replicas. If they
    are host names, so are those of the others: a certificate may have nothing else.
    """
    found: dict[bytes, tuple[str, str, int]] = {}
    for line in nodes.splitlines():
        name, address, *_ = line.split()
        numeric, hostname, *_ = (*address.decode().split(","), "")
        host, _, port = numeric.partition("@")[0].rpartition(":")
        found[name] = host, hostname, int(port)
    by_name = any(
        hostname == preferred[name][0] != ""
        for name, (_, hostname, _) in found.items()
        if name in preferred
    )
    chosen = {
        name: (hostname if by_name and hostname else host, port)
        for name, (host, hostname, port) in found.items()
    }
    return {**chosen, **preferred}


def pack_owners(view: View) -> bytes:
    """Return which live primary has which slots, for `unpack_owners`."""
    return b"".join(
        _RANGE.pack(int(first), int(last or first), member.id)
        for member in view.live()
        for first, _, last in (word.partition(b"-") for word in member.slots)
    )


def unpack_owners(packed: bytes) -> list[bytes]:
    """Return the id of the node of each slot; `b""` if it has none."""
    owners = [b""] * SLOTS
    for first, last, name in _RANGE.iter_unpack(packed):
        owners[first : last + 1] = [name] * (last + 1 - first)
    return owners
