import pytest

from benchmarks.backends.shared_cache import goals
from benchmarks.backends.shared_cache.goals import Finding, Goal
from benchmarks.backends.shared_cache.page import is_whole


@pytest.mark.parametrize(
    ("ours", "verdict"), [(1.39, "met"), (1.4, "met"), (1.41, "MISSED"), (None, "not measured")]
)
def test_a_goal_of_at_most_is_met_up_to_its_bound(ours: float | None, verdict: str) -> None:
    assert Finding(Goal("set", 1.4, "locmem"), ours, 1.0).verdict == verdict


@pytest.mark.parametrize(("ours", "verdict"), [(30.0, "met"), (29.9, "MISSED")])
def test_a_goal_of_at_least_is_met_from_its_bound_on(ours: float, verdict: str) -> None:
    assert Finding(Goal("mix", 15, "diskcache", at_least=True), ours, 2.0).verdict == verdict


def test_a_goal_without_the_other_figure_is_not_measured() -> None:
    assert Finding(Goal("set", 1.4, "locmem"), 1.0, None).verdict == "not measured"


def test_each_goal_is_judged_with_the_figures_of_its_own_row() -> None:
    samples = {
        goals.GET: {"locmem": [2.0, 2.0, 9.0], "ours": [1.0, 1.0, 9.0]},
        goals.AGET_CALL: {"locmem": [100.0], "ours": [3.0]},
        goals.MEMORY_MIB: {"locmem": [400.0], "ours": [120.0]},
        goals.growth_row(10): {"ours": [4.0]},
        goals.growth_row(1000): {"ours": [6.0]},
    }
    findings = goals.judge(goals.figures_of(samples, workers=4, sizes=[10, 1000]), "ours")
    measured = {found.goal.measure: found for found in findings if found.ratio is not None}
    assert {measure: found.ratio for measure, found in measured.items()} == {
        goals.GET: 0.5,
        goals.AGET: 3.0,
        goals.MEMORY: pytest.approx(1.2),
        goals.GROWTH: 1.5,
    }
    assert [found.verdict for found in measured.values()] == ["met", "MISSED", "met", "met"]


def test_tables_have_a_row_for_each_goal() -> None:
    findings = goals.judge({goals.GET: {"ours": 1.0, "locmem": 2.0}}, "ours")
    text, markdown = list(goals.as_text(findings)), list(goals.as_markdown(findings))
    assert text[1].split() == [
        *["get,", "small", "dict", "at", "most", "0.6x", "locmem", "1", "2", "0.5", "met"]
    ]
    assert markdown[2] == "| get, small dict | at most 0.6x locmem | 1 | 2 | 0.5 | met |"
    assert (len(text), len(markdown)) == (1 + len(goals.GOALS), 2 + len(goals.GOALS))


def test_medians_have_a_column_for_each_cache_and_a_dash_for_what_was_not_measured() -> None:
    figures = {"get": {"locmem": 2.5, "ours": 1234.5}, "set": {"ours": 3.0}, "empty": {}}
    assert list(goals.medians_as_markdown(figures)) == [
        "| median | locmem | ours |",
        "|---|---|---|",
        "| get | 2.5 | 1,234 |",
        "| set | - | 3 |",
    ]


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX: y\r\n\r\nhell", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX: y\r\n\r\nhello", True),
    ],
    ids=["half a head", "no body", "half a body", "whole"],
)
def test_an_answer_is_whole_when_its_body_is(answer: bytes, *, whole: bool) -> None:
    assert is_whole(bytearray(answer)) is whole


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"],
    ids=["an error", "of unknown length"],
)
def test_another_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(RuntimeError, match="expected"):
        is_whole(bytearray(answer))
