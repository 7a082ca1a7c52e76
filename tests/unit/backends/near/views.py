"""Views of clusters that tests make up."""

import random

from cacheapp.backends.near.cluster_view import Member, View
from cacheapp.backends.redis.cluster.keys import SLOTS


def widely_split(primaries: int) -> View:
    """Return a view in which no two neighbouring slots are likely to have the same primary."""
    chance = random.Random(7)
    slots: list[list[tuple[int, int]]] = [[] for _ in range(primaries)]
    for slot in range(SLOTS):
        chance.choice(slots).append((slot, slot))
    return View(
        1,
        frozenset(
            Member(b"%040x" % chance.getrandbits(160), True, False, number, tuple(own))  # noqa: FBT003
            for number, own in enumerate(slots)
        ),
    )
