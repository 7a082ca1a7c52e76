"""The timeline of the front page: what is kept, and where it is drawn."""

from pathlib import Path

import pytest

from cacheapp import clock
from cacheapp.demo import timeline
from cacheapp.demo.timeline import Mark, Spot, lanes


@pytest.fixture(autouse=True)
def _own_state(settings: object, tmp_path: Path) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": tmp_path}  # type: ignore[attr-defined]


def _marks(*given: tuple[float, int, str, bool]) -> list[Mark]:
    """Return marks of so many seconds ago."""
    now_s = clock.wall_s()
    return [Mark(now_s - ago_s, "a", pid, kind, ok) for ago_s, pid, kind, ok in given]


def test_marks_older_than_the_timeline_are_removed() -> None:
    timeline.add(_marks((400, 1, "read", True)))
    timeline.add(_marks((0, 1, "write", True)))
    assert [mark.kind for mark in timeline.recent()] == ["write"]


def test_reads_in_quick_succession_are_one_mark_unless_they_differ() -> None:
    timeline.add(
        _marks(
            (0.2, 1, "read", True),
            (0.1, 1, "read", True),
            (0.1, 2, "read", True),
            (0.05, 1, "read", False),
        )
    )
    assert [(mark.pid, mark.ok) for mark in timeline.recent()] == [(1, True), (2, True), (1, False)]


def test_a_file_of_another_version_is_an_empty_timeline(tmp_path: Path) -> None:
    timeline.add(_marks((1, 1, "read", True)))
    (tmp_path / "timeline.json").write_text('[{"at": 1}]')
    assert timeline.recent() == []


def test_a_lane_begins_30_s_ago_and_ends_now() -> None:
    marks = [Mark(70.0, "a", 1, "write", ok=True), Mark(100.0, "a", 1, "read", ok=False)]
    assert lanes(marks, 100.0) == {
        ("a", 1): [
            Spot(0.0, "write", ok=True, times=1, ago_s=30.0),
            Spot(100.0, "read", ok=False, times=1, ago_s=0.0),
        ]
    }


def test_increments_at_one_place_are_one_spot_with_their_sum() -> None:
    marks = [
        Mark(90.0 + number / 100, "a", 1, "increment", ok=True, times=5) for number in range(3)
    ]
    ((spot,),) = lanes(marks, 100.0).values()
    assert (spot.times, spot.kind) == (15, "increment")
