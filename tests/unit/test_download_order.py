from typing import Any

import pytest

from cacheapp.downloads.order import MAX_PROBLEMS, Order, OrderRefused, read_order

ORIGIN = "https://files.example.com:443"
URL = "https://files.example.com/"


def _read(body: dict[str, Any]) -> Order:
    return read_order(
        body,
        origins=frozenset([ORIGIN]),
        extra_origins=frozenset(["http://127.0.0.1:8000"]),
        max_files=200,
        max_threads=50,
    )


def _problems(body: dict[str, Any]) -> list[dict[str, Any]]:
    with pytest.raises(OrderRefused) as caught:
        _read(body)
    return caught.value.problems


def test_an_order_names_its_files_and_threads() -> None:
    order = _read({"urls": [URL + "a", "http://127.0.0.1:8000/b"], "threads": 2})
    assert order.urls == (URL + "a", "http://127.0.0.1:8000/b")
    assert order.threads == 2
    assert order.extra_origins == {"http://127.0.0.1:8000"}


def test_threads_default_to_32_or_what_is_allowed() -> None:
    assert _read({"urls": [URL]}).threads == 32


@pytest.mark.parametrize("threads", [0, 51, -1, 1.5, "8", True, None, [], 10**30], ids=repr)
def test_threads_out_of_range_are_refused(threads: Any) -> None:
    (problem,) = _problems({"urls": [URL], "threads": threads})
    assert problem["field"] == "threads"
    assert problem["error"].endswith("; expected a whole number from 1 to 50")


@pytest.mark.parametrize("urls", [[], None, "x", {}, 5], ids=repr)
def test_urls_must_be_a_list_with_something_in_it(urls: Any) -> None:
    (problem,) = _problems({"urls": urls})
    assert problem["field"] == "urls"
    assert problem["error"].endswith("expected a list of 1 to 200 URLs")


def test_too_many_urls_are_refused_with_their_number() -> None:
    (problem,) = _problems({"urls": [f"{URL}{n}" for n in range(201)]})
    assert problem["error"] == "has 201; expected a list of 1 to 200 URLs"


def test_everything_wrong_is_said_at_once() -> None:
    problems = _problems(
        {
            "urls": [URL, "ftp://x/", 5, URL, "https://evil.net/", URL + "good"],
            "threads": 0,
            "dir": "/etc",
        }
    )
    assert [problem["field"] for problem in problems] == [
        *("dir", "threads", "urls[1]", "urls[2]", "urls[3]", "urls[4]"),
    ]
    assert problems[4]["error"] == "is urls[0] again; expected each URL once"


def test_of_many_problems_some_are_listed_and_all_are_counted() -> None:
    with pytest.raises(OrderRefused, match="150 things wrong; nothing was started") as caught:
        _read({"urls": [f"ftp://x/{n}" for n in range(150)]})
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert caught.value.problems_total == 150
