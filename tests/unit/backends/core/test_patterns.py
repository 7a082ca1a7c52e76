"""Redis-style globs; tests/integration/backends/redis/test_patterns.py compares with Redis itself."""

import time

import pytest

from cacheapp.backends.core.patterns import glob_to_regex


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("*", "", True),
        ("*", "a\nb", True),
        ("", "", True),
        ("", "a", False),
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a**c", "abbc", True),
        ("a*c", "acd", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("?", "\n", True),
        ("[ab]", "b", True),
        ("[ab]", "c", False),
        ("[a-c]", "b", True),
        ("[c-a]", "b", True),
        ("[^a-c]", "b", False),
        ("[^a-c]", "d", True),
        ("[^a]", "", False),
        ("[]", "a", False),
        ("[^]", "a", True),
        ("[a", "a", True),
        ("[", "a", False),
        ("[a-", "-", True),
        ("[a-]", "]", True),
        (r"[\]]", "]", True),
        (r"[\-]", "-", True),
        ("[.]", "x", False),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"\[a]", "[a]", True),
        ("\\", "\\", True),
        ("a.c", "abc", False),
        ("(a|b)+$", "(a|b)+$", True),
        ("ä*", "äöü", True),
    ],
)
def test_a_glob_matches_as_in_redis(pattern: str, text: str, matches: bool) -> None:  # noqa: FBT001
    assert (glob_to_regex(pattern).fullmatch(text) is not None) is matches


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("a*" * 30 + "b", "a" * 200),
        ("*" * 30 + "b", "a" * 5000),
        ("*a?" * 30 + "c", "ab" * 2000),
        ("*[a-b]" * 30 + "c", "ab" * 2000),
        ("a*" * 30, "b" * 200),
    ],
    ids=["stars", "only stars", "question marks", "classes", "no start"],
)
def test_thirty_stars_take_no_time_to_speak_of(pattern: str, text: str) -> None:
    compiled, took_s = glob_to_regex(pattern), []
    for _ in range(5):
        began_s = time.process_time()
        assert compiled.fullmatch(text) is None
        took_s.append(time.process_time() - began_s)
    assert min(took_s) < 1  # with nested repeats it would not end within an hour


def test_the_last_run_is_found_at_the_end() -> None:
    assert glob_to_regex("*ab*ab").fullmatch("ab-ab-ab")
    assert not glob_to_regex("*ab*ab").fullmatch("xab")
