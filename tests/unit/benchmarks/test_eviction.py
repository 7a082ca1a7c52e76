from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.backends.eviction import zipf
from benchmarks.backends.eviction.policies import Fifo, Lru, Policy, Sieve


@pytest.mark.parametrize(
    ("policy", "hits"),
    [
        # 4 evicts 1; 1 evicts 2; 5 evicts 3; 4 and 1 are still there.
        pytest.param(Fifo, "---h--h-hh", id="fifo"),
        # 4 evicts 2, because 1 was asked for after it; 1 is there; 5 evicts 3.
        pytest.param(Lru, "---h-hh-hh", id="lru"),
        pytest.param(Sieve, "---h-hh-hh", id="sieve"),
    ],
)
def test_a_small_sequence_hits_and_misses_as_known(
    policy: Callable[[int], Policy], hits: str
) -> None:
    cache = policy(3)
    assert "".join("-h"[cache.ask(key)] for key in [1, 2, 3, 1, 4, 1, 4, 5, 4, 1]) == hits


def test_the_hand_of_sieve_stays_where_it_evicted_and_begins_again_at_the_oldest() -> None:
    cache = Sieve(3)
    # 4: the hand takes the mark of 1 and evicts 2. 5: it goes on at 3 and evicts it. 6: it takes the
    # mark of 4 and evicts 5, the newest. 7: from the oldest again, it evicts 1, whose mark is gone.
    asked = [1, 2, 3, 1, 4, 5, 4, 6, 7, 4, 6, 1]
    assert "".join("-h"[cache.ask(key)] for key in asked) == "---h--h--hh-"


def _sieve_of_the_paper(room: int, keys: list[int]) -> list[bool]:
    """Return the hits of Algorithm 1 of the paper, on a plain list from the newest to the oldest."""
    queue: list[list[int]] = []  # [key, visited]
    hand: list[int] | None = None
    hits = []
    for key in keys:
        found = next((entry for entry in queue if entry[0] == key), None)
        hits.append(found is not None)
        if found is not None:
            found[1] = 1
            continue
        if len(queue) == room:
            entry = hand if hand is not None else queue[-1]
            while entry[1]:
                entry[1] = 0
                at = queue.index(entry)
                entry = queue[at - 1] if at else queue[-1]
            at = queue.index(entry)
            hand = queue[at - 1] if at else None
            queue.remove(entry)
        queue.insert(0, [key, 0])
    return hits


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 5), st.lists(st.integers(0, 8), max_size=60))
def test_sieve_does_what_the_paper_says(room: int, keys: list[int]) -> None:
    cache = Sieve(room)
    assert [cache.ask(key) for key in keys] == _sieve_of_the_paper(room, keys)


def test_requests_are_as_popular_as_their_law_and_the_same_for_a_seed() -> None:
    drawn = list(zipf.requests(1.0, keys=100, count=25_000, seed=3))
    assert drawn == list(zipf.requests(1.0, keys=100, count=25_000, seed=3))
    assert drawn != list(zipf.requests(1.0, keys=100, count=25_000, seed=4))
    counts = Counter(drawn)
    assert (len(drawn), min(drawn), max(drawn)) == (25_000, 0, 99)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.2)
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.1)
