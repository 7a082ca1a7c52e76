import pytest

from cacheapp.downloads.sources.base import SourceRefused
from cacheapp.downloads.sources.name_filter import ALL_NAMES, NameFilter


@pytest.mark.parametrize(
    ("include", "exclude", "accepted"),
    [
        ([], [], ["a.csv", "b/c.csv", "b/d.txt", "tmp/e.csv"]),
        (["*.csv"], [], ["a.csv", "b/c.csv", "tmp/e.csv"]),
        (["*.csv"], ["tmp/*"], ["a.csv", "b/c.csv"]),
        ([], ["*/*"], ["a.csv"]),
        (["a*", "*.txt"], [], ["a.csv", "b/d.txt"]),
        (["A*"], [], []),
        (["[ab]*"], ["?.csv"], ["b/c.csv", "b/d.txt"]),
    ],
)
def test_names_that_match_an_include_and_no_exclude_are_accepted(
    include: list[str], exclude: list[str], accepted: list[str]
) -> None:
    names = ["a.csv", "b/c.csv", "b/d.txt", "tmp/e.csv"]
    chosen = NameFilter.of(include, exclude)
    assert [name for name in names if chosen.accepts(name)] == accepted


def test_a_hostile_glob_takes_no_time() -> None:
    chosen = NameFilter.of(["a*" * 500 + "b"], [])
    assert not chosen.accepts("a" * 1000)


@pytest.mark.parametrize("globs", [["*"] * 101, [""], ["x" * 1025]], ids=["many", "empty", "long"])
def test_too_much_is_refused(globs: list[str]) -> None:
    with pytest.raises(SourceRefused, match="expected"):
        NameFilter.of(globs, [])


def test_filters_are_part_of_a_sources_identity() -> None:
    assert ALL_NAMES.identity == ""
    assert NameFilter.of(["a"], ["b"]).identity != NameFilter.of(["b"], ["a"]).identity
