"""The map of a job's files, and area charts, as paths."""

from cacheapp.views.file_map import draw_map
from cacheapp.views.sparkline import draw_area


def test_equal_neighbours_are_one_line() -> None:
    drawn = draw_map(["succeeded"] * 3 + ["failed"] + ["queued"] * 2)
    assert drawn.paths == {"succeeded": "M0 5h30", "failed": "M30 5h10", "queued": "M40 5h20"}
    assert (drawn.height, drawn.files_per_square) == (10, 1)


def test_a_line_ends_with_its_row() -> None:
    drawn = draw_map(["succeeded"] * 41)
    assert drawn.paths == {"succeeded": "M0 5h400M0 15h10"}


def test_ten_thousand_files_have_a_square_each_and_more_share_one() -> None:
    assert draw_map(["queued"] * 10_000).files_per_square == 1
    assert draw_map(["queued"] * 10_001).files_per_square == 2


def test_a_shared_square_has_the_state_that_needs_attention_most() -> None:
    states = ["succeeded"] * 10_001
    states[3] = "failed"
    assert draw_map(states).paths["failed"] == "M10 5h10"


def test_rates_end_now_and_have_the_height_of_the_largest() -> None:
    path = draw_area([(0.0, 9.0), (400.0, 0.0), (1000.0, 5.0)], 1000.0, 600.0)
    assert path == "M0.0 60L0.0 59.0L600.0 1.0L600.0 60Z"


def test_one_rate_is_no_line() -> None:
    assert draw_area([(1.0, 5.0)], 2.0, 600.0) == ""
