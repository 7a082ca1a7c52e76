"""From which replies of the nodes of a cluster it follows that no other node has written."""

from collections.abc import Sequence

import pytest

from cacheapp.backends.near import cluster_view
from cacheapp.backends.near.cluster import TrackedCluster
from cacheapp.backends.near.cluster_view import Statement, addresses, pack_owners, unpack_owners
from cacheapp.backends.near.store import NearStore
from cacheapp.backends.near.tracking import ServersChanged
from cacheapp.backends.redis.cluster.keys import SLOTS
from cacheapp.backends.redis.cluster.store import ClusterStore
from cacheapp.backends.redis.cluster.topology import Topology
from cacheapp.errors import StoreUnavailable
from tests.unit.backends.near.views import widely_split

A, B, C, R = (letter.encode() * 40 for letter in "abcr")
NODES = [
    (A, "master", "-", 3, "0-5460 5462"),
    (B, "master", "-", 2, "5461 5463-10921"),
    (C, "master", "-", 1, "10922-16383"),
    (R, "slave", "a" * 40, 3, ""),
]


def said(
    own: bytes,
    nodes: Sequence[tuple[bytes, str, str, int, str]] = NODES,
    epoch: int = 7,
    pong: int = 3,
) -> list[bytes]:
    """Return the replies of a node to CLUSTER NODES and CLUSTER INFO; `pong`: when it had the last ones."""
    lines = []
    for port, (name, flags, primary, config_epoch, slots) in enumerate(nodes, 7000):
        shown = f"myself,{flags}" if name == own else flags
        lines.append(
            f"{name.decode()} 10.0.0.1:{port}@17000,host-{port} {shown} {primary} 0 {port * pong} "
            f"{config_epoch} connected {slots}\n"
        )
    info = f"cluster_state:ok\r\ncluster_current_epoch:{epoch}\r\ncluster_my_epoch:1\r\n"
    return ["".join(lines).encode(), info.encode()]


def parsed(own: bytes, nodes: Sequence[tuple[bytes, str, str, int, str]] = NODES) -> Statement:
    return cluster_view.parse(*said(own, nodes))


def changed(number: int, **fields: object) -> list[tuple[bytes, str, str, int, str]]:
    """Return the nodes with a change of one of them."""
    names = ("id", "flags", "primary", "config_epoch", "slots")
    found = dict(zip(names, NODES[number], strict=True)) | fields
    return [*NODES[:number], tuple(found.values()), *NODES[number + 1 :]]  # type: ignore[list-item]


@pytest.fixture
def cluster() -> TrackedCluster:
    """A cluster in an epoch that began with `NODES`."""
    made = TrackedCluster(Topology([], lambda _h, _p: None, "none"), lambda _h, _p: None, b"")  # type: ignore[arg-type, return-value]
    made.begin(parsed(A).view)
    return made


def confirms(cluster: TrackedCluster, *replies: list[bytes]) -> bool:
    try:
        cluster.check(replies)
    except ServersChanged:
        return False
    return True


def test_equal_views_of_all_nodes_confirm(cluster: TrackedCluster) -> None:
    assert confirms(cluster, *map(said, (A, B, C, R)))


def test_a_round_in_which_only_times_have_changed_confirms(cluster: TrackedCluster) -> None:
    for pong in (3, 3, 5, 10**9):
        assert confirms(cluster, *(said(own, pong=pong) for own in (A, B, C, R)))


@pytest.mark.parametrize(
    "last",
    [
        said(R, epoch=8),
        said(R, changed(3, flags="master", primary="-")),
        said(R, changed(0, slots="0-5460")),
        said(R, changed(0, config_epoch=9)),
        said(R, changed(1, flags="master,fail")),
        said(R, [*NODES, (b"n" * 40, "master", "-", 0, "")]),
        said(R, [*NODES, (b"n" * 40, "slave", "a" * 40, 3, "")]),
        said(R, NODES[:2] + NODES[3:]),
        said(b"r" * 39 + b"x", [*NODES[:3], (b"r" * 39 + b"x", *NODES[3][1:])]),
        said(B),
    ],
    ids=[
        "an election",
        "a promotion",
        "a slot",
        "slots taken over and back",
        "a failure",
        "a new primary",
        "a new replica",
        "a node forgotten",
        "another node at the address",
        "the reply of another node",
    ],
)
@pytest.mark.parametrize("first_round", [True, False], ids=["at first", "later"])
def test_one_node_that_says_something_else_confirms_nothing(
    cluster: TrackedCluster, last: list[bytes], *, first_round: bool
) -> None:
    if not first_round:
        assert confirms(cluster, *map(said, (A, B, C, R)))
    assert not confirms(cluster, *map(said, (A, B, C)), last)


@pytest.mark.parametrize(
    "reply",
    [
        [said(R)[0], b"cluster_state:ok"],
        [said(R)[0], None],
        [None, said(R)[1]],
        [b"OK", said(R)[1]],
        [b"", said(R)[1]],
    ],
    ids=["no epoch", "no INFO", "no NODES", "another form", "nothing"],
)
def test_a_reply_that_says_nothing_confirms_nothing(
    cluster: TrackedCluster, reply: list[bytes]
) -> None:
    assert confirms(cluster, *map(said, (A, B, C, R)))
    with pytest.raises(StoreUnavailable, match=r"the reply to CLUSTER (INFO|NODES)"):
        cluster.check([*map(said, (A, B, C)), reply])


def test_what_says_nothing_about_writes_is_ignored(cluster: TrackedCluster) -> None:
    nodes = [
        (A, "master,fail?", "-", 3, f"0-5460 5462 [5460->-{B.decode()}]"),
        *NODES[1:3],
        (R, "slave,nofailover", "b" * 40, 1, ""),
        (b"h" * 40, "handshake", "-", 0, ""),
    ]
    assert confirms(cluster, *[said(own, nodes) for own in (A, B, C, R)])


def test_a_slot_that_is_moved_to_a_node_that_is_down_confirms_nothing(
    cluster: TrackedCluster,
) -> None:
    down = [*NODES, (b"d" * 40, "master,fail", "-", 0, "")]
    cluster.begin(parsed(A, down).view)
    assert confirms(cluster, *[said(own, down) for own in (A, B, C, R)])
    moving = [(A, "master", "-", 3, f"0-5460 5462 [0->-{'d' * 40}]"), *down[1:]]
    assert not confirms(cluster, said(A, moving), *[said(own, down) for own in (B, C, R)])


def test_a_minority_of_the_primaries_confirms_nothing(cluster: TrackedCluster) -> None:
    down = [NODES[0], *((*node[:1], "master,fail", *node[2:]) for node in NODES[1:3]), NODES[3]]
    cluster.begin(parsed(A, down).view)
    assert not confirms(cluster, said(A, down), said(R, down))


def test_the_owners_of_slots_are_the_live_primaries() -> None:
    owners = unpack_owners(pack_owners(parsed(A, changed(2, flags="master,fail")).view))
    assert [owners[slot] for slot in (0, 5460, 5461, 5462, 5463, 10922)] == [A, A, B, A, B, b""]
    assert unpack_owners(b"") == [b""] * SLOTS


def test_the_record_of_owners_is_small_however_the_slots_are_split() -> None:
    """The copy may have 1 MiB in all: see `test_a_small_copy_is_not_emptied_by_the_record_of_owners`."""
    split = widely_split(1000)
    packed = pack_owners(split)
    assert len(packed) < 2 * SLOTS + 41 * 1000
    owners = unpack_owners(packed)
    assert all(owners[slot] == member.id for member in split.members for slot, _ in member.slots)
    assert b"" not in owners


def rest_of(lines: list[bytes]) -> bytes:
    """Return the lines with what follows an address."""
    return b"".join(line + b" master - 0 0 1 connected\n" for line in lines)


def test_addresses_are_read_in_all_forms() -> None:
    lines = [b"a :7000@17000", b"b ::1:7001@17001,name", b"c 1.2.3.4:7002@1,,shard-id=x"]
    found = addresses(rest_of(lines), {b"a": ("1.2.3.5", 7000)})
    assert found == {b"a": ("1.2.3.5", 7000), b"b": ("::1", 7001), b"c": ("1.2.3.4", 7002)}


@pytest.mark.parametrize(
    ("preferred", "spare"), [("one", "two"), ("1.2.3.4", "1.2.3.5"), ("", "1.2.3.5")]
)
def test_a_node_without_slots_has_an_address_of_the_kind_that_the_cluster_prefers(
    preferred: str, spare: str
) -> None:
    lines = [b"a 1.2.3.4:7000@17000,one", b"b 1.2.3.5:7000@17000,two", b"c 1.2.3.6:7000@17000"]
    found = addresses(rest_of(lines), {b"a": (preferred, 7000)})
    assert found == {b"a": (preferred, 7000), b"b": (spare, 7000), b"c": ("1.2.3.6", 7000)}


def test_no_write_of_a_cluster_is_one_that_the_copy_does_not_see() -> None:
    """NearStore replaces methods of RedisStore by their names; those of ClusterStore call `super()`."""
    wrapped = {name for name, found in vars(NearStore).items() if hasattr(found, "__wrapped__")}
    assert len(wrapped) > 5
    assert not wrapped & set(vars(ClusterStore))
