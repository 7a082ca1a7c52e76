from typing import Any

import pytest

from cacheapp.access_settings import AllowedBucket
from cacheapp.downloads.sources.manifest import FORMS
from cacheapp.downloads.sources.request import (
    MAX_PROBLEMS,
    DownloadRequest,
    RequestLimits,
    RequestRefused,
    parse_request,
)

ORIGIN = "https://files.example.com:443"
URL = "https://files.example.com/"


def _read(body: dict[str, Any]) -> DownloadRequest:
    allowed = RequestLimits(
        origins=frozenset([ORIGIN]),
        extra_origins=frozenset(["http://127.0.0.1:8000"]),
        buckets=(AllowedBucket("open", "pub/"), AllowedBucket("whole", "")),
        max_files=200,
        max_threads=50,
    )
    return parse_request(body, allowed)


def _problems(body: dict[str, Any]) -> list[dict[str, Any]]:
    with pytest.raises(RequestRefused) as caught:
        _read(body)
    return caught.value.problems


def test_a_request_has_files_and_threads() -> None:
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


def test_all_mistakes_are_reported_at_once() -> None:
    problems = _problems(
        {
            "urls": [URL, "ftp://x/", 5, URL, "https://evil.net/", URL + "good"],
            "threads": 0,
            "dir": "/etc",
        }
    )
    assert [problem["field"] for problem in problems] == [
        *("threads", "dir", "urls[1]", "urls[2]", "urls[3]", "urls[4]"),
    ]
    assert problems[4]["error"] == "repeats urls[0]; expected each URL once"


def test_of_many_problems_some_are_listed_and_all_are_counted() -> None:
    with pytest.raises(RequestRefused, match="150 invalid values; nothing was started") as caught:
        _read({"urls": [f"ftp://x/{n}" for n in range(150)]})
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert caught.value.problems_total == 150


SHA256 = "ab" * 32


def test_a_manifest_names_files_with_sums_and_names() -> None:
    order = _read({"manifest": f"# all\n\n{URL}a {SHA256.upper()} x/b.txt\n  {URL}c  \n{URL}a y"})
    assert order.urls == (URL + "a", URL + "c", URL + "a")
    assert order.names == ("x/b.txt", "c", "y")
    assert order.checksums == (f"sha256:{SHA256}", "", "")


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"base_url": 7}, "base_url"),
        ({"base_url": "ftp://a/"}, "base_url"),
        ({"portable_names": "yes"}, "portable_names"),
    ],
)
def test_the_options_of_a_manifest_are_checked(extra: dict[str, Any], field: str) -> None:
    problems = _problems({"manifest": f"{SHA256}  name", **extra})
    assert field in [problem["field"] for problem in problems]


def test_a_base_url_belongs_to_a_manifest() -> None:
    assert _problems({"urls": [f"{URL}a"], "base_url": URL}) == [
        {"field": "base_url", "error": "given without manifest; expected both"}
    ]


def test_a_rate_is_a_number_or_a_text_with_a_unit() -> None:
    assert _read({"urls": [URL + "a"], "parts": 3}).parts == 3
    (found,) = _problems({"urls": [URL + "a"], "parts": 65})
    assert found["error"] == "is 65; expected a whole number from 1 to 64"
    assert _read({"urls": [URL + "a"], "limit_rate": "500k"}).limit_rate == 500 * 1024
    assert _read({"urls": [URL + "a"]}).limit_rate is None
    (found,) = _problems({"urls": [URL + "a"], "limit_rate": "slow"})
    assert found["field"] == "limit_rate"


def test_a_title_is_one_line_of_at_most_200_characters() -> None:
    urls = [URL + "a"]
    for given, kept in ((" Sales of May ", "Sales of May"), ("x" * 200, "x" * 200), ("", "")):
        assert _read({"urls": urls, "title": given}).title == kept
    assert _read({"urls": urls}).title == ""
    for wrong in ("x" * 201, "two\nlines", "a\x00b", "\u202eturned", "\ud800", 7):
        (found,) = _problems({"urls": urls, "title": wrong})
        assert found["field"] == "title"
        assert "expected one line of at most 200 characters" in found["error"]


def test_a_url_whose_name_cannot_exist_is_a_problem_unless_names_are_portable() -> None:
    url = f"{URL}{'x' * 300}"
    (problem,) = _problems({"urls": [url]})
    assert problem["error"] == "a part of the name is longer than 255 bytes"
    assert _read({"urls": [url], "portable_names": True}).portable_names


def test_every_wrong_line_of_a_manifest_is_named() -> None:
    problems = _problems({"manifest": f"{URL}a\nftp://x/\nhttps://evil.net/\n{URL}b ../x"})
    assert [problem["field"] for problem in problems] == [
        *("manifest line 2", "manifest line 3", "manifest line 4")
    ]
    assert "origin https://evil.net:443 is not allowed" in problems[1]["error"]
    assert "it would leave the directory" in problems[2]["error"]


def test_a_manifest_gives_no_file_the_name_of_a_folder() -> None:
    problems = _problems({"manifest": f"{URL}1 a/b\n# no file\n{URL}2 a\n{URL}3 a-b\n{URL}4 c/d"})
    assert problems == [
        {"field": "manifest line 3", "error": "its name 'a' is a folder of another file"}
    ]


@pytest.mark.parametrize(
    ("manifest", "error"),
    [
        (7, "is 7; expected " + FORMS),
        ("# nothing", "has 0; expected 1 to 200 lines with a URL"),
        (f"{URL}a\n" * 201, "has 201; expected 1 to 200 lines with a URL"),
    ],
    ids=["number", "empty", "long"],
)
def test_a_manifest_must_name_some_files(manifest: Any, error: str) -> None:
    assert _problems({"manifest": manifest}) == [{"field": "manifest", "error": error}]


@pytest.mark.parametrize(
    "text", ["s3://open/pub/", "s3://open/pub/x", "s3://whole", "s3://whole/a"]
)
def test_a_prefix_below_an_allowed_one_may_be_requested(text: str) -> None:
    order = _read({"s3": text})
    assert (order.source, order.urls) == (text, ())


@pytest.mark.parametrize(
    "text",
    [
        *("s3://open/", "s3://open", "s3://open/pub", "s3://open/private/", "s3://open/Pub/x"),
        *("s3://other/pub/", "s3://open/pub%2f../x?a", "s3://open/pub/#x", "https://open/pub/"),
        *(
            "s3://open@evil.net/pub/",
            "s3:///pub/",
            "s3://open/%70ub",
            "s3://open/pub/\ud800",
            7,
            None,
            ["s3://whole"],
        ),
    ],
    ids=ascii,
)
def test_other_buckets_and_prefixes_are_refused(text: Any) -> None:
    (problem,) = _problems({"s3": text})
    assert problem["field"] == "s3"


def test_an_encoded_prefix_is_checked_in_decoded_form() -> None:
    assert _read({"s3": "s3://open/%70ub%2fx"}).source == "s3://open/%70ub%2fx"


def test_one_kind_of_source_at_a_time() -> None:
    (problem,) = _problems({"urls": [URL], "s3": "s3://whole"})
    assert problem == {"field": "s3", "error": "given together with urls; expected one of them"}


def test_a_prefix_may_have_globs() -> None:
    found = _read({"s3": "s3://open/pub/", "include": ["*.csv"], "exclude": ["tmp/*"]})
    assert found.names_wanted.include == ("*.csv",)
    assert found.names_wanted.exclude == ("tmp/*",)


@pytest.mark.parametrize(
    ("body", "field", "error"),
    [
        ({"urls": [URL + "a"], "include": ["*"]}, "include", "given without s3; expected both"),
        ({"s3": "s3://open/pub/", "exclude": "*"}, "exclude", "is '*'; expected a list of str"),
        ({"s3": "s3://open/pub/", "include": [1]}, "include", "is [1]; expected a list of str"),
        ({"s3": "s3://open/pub/", "include": [""]}, "include", "expected 1 to 1024"),
    ],
)
def test_wrong_globs_are_refused(body: dict[str, Any], field: str, error: str) -> None:
    (problem,) = _problems(body)
    assert problem["field"] == field
    assert problem["error"].endswith(error)
