"""The parts of a file: all missing bytes once, in order, and smaller towards the end."""

import itertools

import pytest

from cacheapp.downloads.engine.part_table import Part, PartTable
from cacheapp.downloads.storage.range_journal import Span, merge

MIB = 2**20


def _parts(table: PartTable) -> list[Part]:
    return list(iter(table.claim, None))


@pytest.mark.parametrize(
    "spans",
    [
        pytest.param((), id="none"),
        pytest.param(((0, 7 * MIB),), id="begin"),
        pytest.param(((3 * MIB, 4 * MIB + 1), (90 * MIB, 100 * MIB)), id="holes"),
        pytest.param(((0, 100 * MIB),), id="all"),
    ],
)
@pytest.mark.parametrize("connections", [1, 8])
def test_the_parts_are_the_missing_bytes(spans: tuple[Span, ...], connections: int) -> None:
    table = PartTable(100 * MIB, spans, connections, MIB)
    parts = [(part.at, part.end) for part in _parts(table)]
    assert parts == sorted(parts)
    assert merge([*parts, *spans]) == ((0, 100 * MIB),)
    missing = sum(end - first for first, end in parts)
    assert missing + table.bytes_done == 100 * MIB
    assert table.bytes_done == sum(end - first for first, end in spans)


def test_parts_become_smaller_and_are_not_many() -> None:
    parts = _parts(PartTable(1024 * MIB, (), 8, MIB))
    sizes = [part.end - part.at for part in parts]
    assert sizes[0] == 64 * MIB
    assert all(a >= b for a, b in itertools.pairwise(sizes))
    assert max(sizes[-8:]) == MIB
    assert len(sizes) < 100


def test_the_prefix_grows_over_parts_that_are_complete() -> None:
    table = PartTable(100, (), 2, 25)
    first, second = table.claim(), table.claim()
    assert first is not None
    assert second is not None
    table.advance(second, 25)
    assert (table.prefix, table.bytes_done) == (0, 25)
    table.advance(first, 10)
    assert (table.prefix, table.bytes_done) == (10, 35)
    table.advance(first, 15)
    assert (table.prefix, table.bytes_done) == (50, 50)


def test_a_part_belongs_to_one_thread_until_it_is_released() -> None:
    table = PartTable(100, (), 2, 25)
    last = table.claim(last=True)
    assert last is not None
    assert (last.at, last.end) == (75, 100)
    assert table.claim(at=75) is None
    table.advance(last, 5)
    table.release(last)
    again = table.claim(since=70)
    assert again is last
    assert (again.at, again.end) == (80, 100)
    assert table.free == 3
