"""The files of a copy: what fits into a small one, and whose errors are taken for a failure of it."""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from cacheapp import clock
from cacheapp.backends.near import records
from cacheapp.backends.near.cluster_view import pack_owners
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.records import Row
from cacheapp.errors import StoreFull, StoreUnavailable
from tests.unit.backends.near.views import widely_split

SMALLEST = 2**20


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[LocalCopy]:
    made = LocalCopy(tmp_path / "copy", SMALLEST, 1.0, has_owners=True)
    yield made
    made.close()


def fill(copy: LocalCopy, prefix: str) -> None:
    """Store entries until the copy has evicted some."""
    evicted = copy.figures()["copy_evictions"]
    for number in range(100_000):
        key = copy.encode(f"{prefix}{number}")
        row = Row(key, records.PAYLOAD, b"x" * (number % 3000), None)
        copy.end_fill(copy.begin_fill([key]), [row])
        if copy.figures()["copy_evictions"] > evicted + 10:
            return
    raise AssertionError("the copy is not full")


@pytest.mark.parametrize("primaries", [3, 1000])
def test_a_small_copy_is_not_emptied_by_the_record_of_owners(
    copy: LocalCopy, caplog: pytest.LogCaptureFixture, primaries: int
) -> None:
    """With slots split as widely as they can be, which makes the largest record."""
    packed = pack_owners(widely_split(primaries))
    with caplog.at_level(logging.INFO):
        owner = copy.claim(60.0)
        assert owner is not None
        copy.begin_epoch(owner, packed)
        env = copy.environment.current
        for number in range(5):
            fill(copy, f"{number}-")
            copy.begin_epoch(owner, packed)
    found = copy.owners()
    assert found[0] is env
    assert found[1:] == (6, packed)
    assert copy.figures()["copy_entries"] > 50
    # A thread that another test has left may log something of its own.
    assert [each for each in caplog.records if each.name.startswith("cacheapp.backends")] == []


def test_a_record_of_owners_that_is_too_large_begins_no_epoch(copy: LocalCopy) -> None:
    owner = copy.claim(60.0)
    assert owner is not None
    copy.begin_epoch(owner, b"former")
    with pytest.raises(StoreFull, match="has 100000 bytes, and 87381 fit; nothing is copied"):
        copy.begin_epoch(owner, bytes(100_000))
    assert copy.owners()[1:] == (1, b"former")


def test_what_a_signal_handler_raises_is_no_failure_of_the_copy(copy: LocalCopy) -> None:
    error = StoreUnavailable("another cache is down")

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise error

    def interrupted(*_args: object) -> None:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(StoreUnavailable) as caught:
            copy._try(interrupted)  # noqa: SLF001 (all operations use it)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value is error
    assert copy.trusted_after < clock.boot_s()
