"""What is known about a call on many keys if one of its batches fails."""

from collections.abc import Iterator

import pytest

from cacheapp.backends.redis.batches import in_batches, run_each
from cacheapp.errors import CacheappError, OutcomeUnknown, StoreFull, StoreUnavailable

FAILURES = [StoreUnavailable("it is down"), StoreFull("it is full"), OutcomeUnknown("it is silent")]
failures = pytest.mark.parametrize("failure", FAILURES, ids=lambda each: type(each).__name__)


def test_the_results_of_the_batches_are_added() -> None:
    batches = list(in_batches(range(2500)))
    assert [len(batch) for batch in batches] == [1000, 1000, 500]
    assert run_each(batches, sum, "added") == sum(range(2500))
    assert run_each([], sum, "added") == 0


@failures
@pytest.mark.parametrize("where", ["in a batch", "before a batch"])
def test_what_was_done_before_a_failure_makes_the_outcome_unknown(
    failure: CacheappError, where: str
) -> None:
    def batches() -> Iterator[list[int]]:
        yield [1, 2]
        if where == "before a batch":
            raise failure
        yield [3]

    def run(batch: list[int]) -> int:
        if batch == [3]:
            raise failure
        return len(batch)

    with pytest.raises(OutcomeUnknown, match=r"^2 keys were stored, and then: it is"):
        run_each(batches(), run, "stored")


@failures
def test_the_failure_of_the_first_batch_is_raised_as_it_is(failure: CacheappError) -> None:
    def run(_batch: list[int]) -> int:
        raise failure

    with pytest.raises(type(failure)) as caught:
        run_each([[1]], run, "stored")
    assert caught.value is failure
