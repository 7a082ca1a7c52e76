"""The journal of ranges: what a kill or a power cut may leave in it."""

from pathlib import Path

import pytest

from cacheapp.downloads.storage.range_journal import RangeJournal, journal_path, read_ranges


def test_recorded_ranges_are_read_merged(tmp_path: Path) -> None:
    partial = tmp_path / ".x.part"
    journal = RangeJournal(partial, [(0, 10)])
    journal.open()
    journal.append(20, 30)
    journal.append(10, 15)
    journal.close()
    assert read_ranges(partial, 100) == ((0, 15), (20, 30))
    assert read_ranges(partial.with_suffix(".split"), 100) == ((0, 15), (20, 30))
    journal.remove()
    assert read_ranges(partial, 100) == ()


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param("90 9", id="line-without-end"),
        pytest.param("\0\0\0\0\n", id="zeros"),
        pytest.param("5 101\n", id="beyond-the-file"),
        pytest.param("9 9\n", id="empty"),
        pytest.param("9 5\n", id="backwards"),
        pytest.param("\n9\n-1 5\n1 2 3\n\u0663 9\n", id="no-ranges"),
    ],
)
def test_what_is_no_range_is_ignored(tmp_path: Path, rest: str) -> None:
    partial = tmp_path / ".x.split"
    journal_path(partial).write_text("0 10\n" + rest, encoding="utf-8")
    assert read_ranges(partial, 100) == ((0, 10),)
