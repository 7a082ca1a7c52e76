"""CLUSTER NODES in the forms that releases, addresses and moments give it."""

import pytest

from cacheapp.backends.redis.cluster.nodes import (
    NodeEntry,
    own_entry,
    parse_nodes,
    without_times,
)
from cacheapp.errors import StoreUnavailable

A, B = b"a" * 40, b"b" * 40
PLACE = "10.0.0.1:7000@17000"


def line(
    place: str = PLACE,
    flags: str = "master",
    rest: str = "- 0 1700000000000 3 connected 0-5460",
    name: bytes = A,
) -> bytes:
    return f"{name.decode()} {place} {flags} {rest}\n".encode()


def parsed(
    place: str = PLACE, flags: str = "master", rest: str = "- 0 17 3 connected 0-5460"
) -> NodeEntry:
    (found,) = parse_nodes(line(place, flags, rest))
    return found


def test_all_fields_are_read() -> None:
    assert parsed("10.0.0.1:7000@17000,one", "myself,master") == NodeEntry(
        id=A,
        host="10.0.0.1",
        port=7000,
        hostname="one",
        flags=frozenset([b"myself", b"master"]),
        config_epoch=3,
        slots=((0, 5460),),
        leaving=(),
    )


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("10.0.0.1:7000", ("10.0.0.1", 7000, "")),
        ("10.0.0.1:7000@17000", ("10.0.0.1", 7000, "")),
        ("10.0.0.1:7000@17000,one.example", ("10.0.0.1", 7000, "one.example")),
        ("10.0.0.1:7000@17000,,tls-port=0,shard-id=69bc", ("10.0.0.1", 7000, "")),
        ("10.0.0.1:7000@17000,one,shard-id=69bc", ("10.0.0.1", 7000, "one")),
        ("2001:db8::1:7000@17000,one", ("2001:db8::1", 7000, "one")),
        ("::1:7000@17000", ("::1", 7000, "")),
        (":7000@17000", ("", 7000, "")),
        (":7000@17000,one", ("", 7000, "one")),
        (":0@0", ("", 0, "")),
        (":0@0,one", ("", 0, "one")),
        (":0", ("", 0, "")),
    ],
)
def test_addresses(place: str, expected: tuple[str, int, str]) -> None:
    found = parsed(place)
    assert (found.host, found.port, found.hostname) == expected


@pytest.mark.parametrize(
    ("flags", "primary", "member", "failed"),
    [
        ("master", True, True, False),
        ("slave", False, True, False),
        ("myself,slave,nofailover", False, True, False),
        ("master,fail?", True, True, False),
        ("master,fail", True, True, True),
        ("master,fail,noaddr", True, True, True),
        ("slave,fail?,nofailover", False, True, False),
        ("master,noaddr", True, True, False),
        ("handshake", False, False, False),
        ("handshake,noaddr", False, False, False),
        ("noflags", False, True, False),
    ],
)
def test_flags(flags: str, *, primary: bool, member: bool, failed: bool) -> None:
    found = parsed("10.0.0.1:7000@17000", flags)
    assert (found.is_primary, found.is_member, found.has_failed) == (primary, member, failed)


@pytest.mark.parametrize(
    ("words", "slots", "leaving"),
    [
        ("", (), ()),
        ("7", ((7, 7),), ()),
        ("0-5460 5462 10000-16383", ((0, 5460), (5462, 5462), (10000, 16383)), ()),
        (f"0-9 [5->-{B.decode()}]", ((0, 9),), ((5, B),)),
        (f"0-9 [5->-{B.decode()}] [6->-{A.decode()}]", ((0, 9),), ((5, B), (6, A))),
        (f"0-9 [77-<-{B.decode()}]", ((0, 9),), ()),
        (f"[77-<-{B.decode()}]", (), ()),
    ],
    ids=["none", "one", "several", "leaving", "two leaving", "arriving", "only arriving"],
)
def test_slots(words: str, slots: tuple[object, ...], leaving: tuple[object, ...]) -> None:
    found = parsed("10.0.0.1:7000@17000", "myself,master", f"- 0 17 3 disconnected {words}")
    assert (found.slots, found.leaving) == (slots, leaving)


@pytest.mark.parametrize(
    "reply",
    [
        b"OK",
        line() + b"\n",
        line(rest="- 0 17 3"),
        line(rest="- 0 17 three connected"),
        line(place="localhost"),
        line(place="localhost:port"),
        line(place="HOST:7000").replace(b"HOST", b"\xff"),
        line(rest="- 0 17 3 connected 0-16384"),
        line(rest="- 0 17 3 connected 9-5"),
        line(rest="- 0 17 3 connected -5"),
        line(rest="- 0 17 3 connected x"),
        line(rest="- 0 17 3 connected [x->-y]"),
        None,
        "text",
        [],
        7,
    ],
)
def test_another_form_is_an_error_of_the_cluster(reply: object) -> None:
    with pytest.raises(StoreUnavailable, match="the reply to CLUSTER NODES has an unknown form"):
        parse_nodes(reply)


@pytest.mark.parametrize("count", [0, 2])
def test_one_node_is_the_one_that_replied(count: int) -> None:
    own = parse_nodes(line(flags="master,myself") + line(name=B))
    assert own_entry(own).id == A
    with pytest.raises(StoreUnavailable, match=f"has {count} nodes `myself`, not one"):
        own_entry([own[0]] * count)


def test_two_replies_that_differ_only_in_times_are_equal_without_them() -> None:
    def reply(ping: int, pong: int, epoch: int = 3, link: str = "connected") -> bytes:
        own = line(flags="myself,master", rest=f"- {ping} {pong} {epoch} {link} 0-5460 7 9 11")
        return own + line(flags="slave", rest=f"{'7' * 40} {pong} {ping} 3 {link}", name=B)

    first = without_times(reply(0, 1700000000000))
    assert first == without_times(reply(1700000000005, 1700000000001)) == without_times(reply(0, 0))
    assert first != without_times(reply(0, 1700000000000, epoch=4))
    assert first != without_times(reply(0, 1700000000000, link="disconnected"))


def test_all_that_is_parsed_is_compared() -> None:
    """Else a change would not be noticed."""
    whole = line(
        "10.0.0.1:7000@17000,one", "myself,master", f"- 0 17 3 connected 0-9 [5->-{B.decode()}]"
    )
    for place in range(len(whole) - 1):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        if without_times(changed) != without_times(whole):
            continue
        assert parse_nodes(changed) == parse_nodes(whole), changed
