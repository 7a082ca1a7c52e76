import unicodedata
from collections.abc import Iterable
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheapp.downloads.storage.filenames import (
    FAITHFUL,
    MAX_PORTABLE_BYTES,
    PORTABLE,
    NameRefused,
    NameRules,
    fold_name,
    original_name,
)

ORIGIN = "https://files.example.com/"

# The time of an example depends more on the machine than on the name.
NO_CLOCK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Case-folding letters, separators, reserved names, combining marks: the difficult characters.
NASTY = st.lists(
    st.sampled_from(
        [
            *"./\\ aA\xdf\u017f\u0130\u0131\xe9\xc9~-_:\0\n\x7f\u202e\u2028\uff05",
            "e\u0301",
            "con",
            "NUL",
            "..",
            "%2e",
        ]
    )
    | st.characters(codec="utf-8"),
    max_size=120,
).map("".join)


def _plan_names(urls: Iterable[str], rules: NameRules = PORTABLE) -> list[str]:
    return rules.number_duplicates(rules.from_url(url) for url in urls)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("a/b/report.pdf", "report.pdf", id="last-segment"),
        pytest.param("report.pdf?x=/etc/passwd#/y", "report.pdf", id="query-and-fragment"),
        pytest.param("a/../../etc/passwd", "passwd", id="traversal"),
        pytest.param("a/..%2f..%2fpasswd", "passwd", id="encoded-slash"),
        pytest.param("a/..%5c..%5Cpasswd", "passwd", id="encoded-backslash"),
        pytest.param("..", "file", id="only-dots"),
        pytest.param("a/%2e%2e", "file", id="only-encoded-dots"),
        pytest.param("", "file", id="nothing"),
        pytest.param("folder/", "folder", id="folder"),
        pytest.param(".bashrc", "_bashrc", id="hidden"),
        pytest.param(".0.part", "_0.part", id="partial"),
        pytest.param("CON", "_CON", id="device"),
        pytest.param("nul.tar.gz", "_nul.tar.gz", id="device-with-extension"),
        pytest.param("COM%C2%B9.txt", "_COM¹.txt", id="device-with-superscript"),
        pytest.param("C:%5Cautoexec.bat", "autoexec.bat", id="drive"),
        pytest.param("a.txt:stream", "a.txt_stream", id="alternate-stream"),
        pytest.param("a.txt.%20.", "a.txt", id="trailing-dots-and-spaces"),
        pytest.param("a%00b%0Ac%1Bd", "a_b_c_d", id="controls"),
        pytest.param("exe%E2%80%AEfdp.sh", "exe_fdp.sh", id="right-to-left-override"),
        pytest.param("%ff%fe", "��", id="not-utf-8"),
        pytest.param("e%CC%81", "é", id="composed"),
    ],
)
def test_a_portable_name_is_the_last_segment_made_safe(path: str, expected: str) -> None:
    assert PORTABLE.from_url(ORIGIN + path) == expected


def test_a_long_portable_name_is_cut_between_characters_and_keeps_its_extension() -> None:
    name = PORTABLE.from_url(ORIGIN + quote("é" * 300) + ".tar")
    assert name.startswith("éé")
    assert name.endswith("é.tar")
    assert MAX_PORTABLE_BYTES - 3 <= len(name.encode()) <= MAX_PORTABLE_BYTES


def test_names_that_some_file_system_takes_for_one_get_numbers() -> None:
    paths = ["a.txt", "b/a.txt", "A.TXT", "a-2.txt", "%EF%BD%81.txt", "stra%C3%9Fe", "STRASSE"]
    assert _plan_names(ORIGIN + path for path in paths) == [
        *("a.txt", "a-2.txt", "A-3.TXT", "a-2-2.txt", "\uff41-4.txt", "straße", "STRASSE-2"),
    ]


def test_names_that_are_folders_of_others_are_reported() -> None:
    names = ["a", "a/b/c", "a-b", "A/B", "", "d", "e/f", "a/b-c", "e", "d-2/x"]
    found = {
        name for name, reason in zip(names, PORTABLE.folder_conflicts(names), strict=True) if reason
    }
    assert found == {"a", "A/B", "e"}
    assert PORTABLE.folder_conflicts(["x/y", "X"])[1] == "its name 'X' is a folder of another file"


@NO_CLOCK
@given(st.lists(st.text("abA/", min_size=1, max_size=7), max_size=12))
def test_of_what_is_left_no_name_is_a_folder_of_another(wished: list[str]) -> None:
    names = PORTABLE.number_duplicates(
        "/".join(filter(None, name.split("/"))) or "x" for name in wished
    )
    reasons = PORTABLE.folder_conflicts(names)
    left = [fold_name(name) for name, reason in zip(names, reasons, strict=True) if not reason]
    assert not [name for name in left for other in left if other.startswith(name + "/")]
    blamed = [fold_name(name) for name, reason in zip(names, reasons, strict=True) if reason]
    assert all(any(fold_name(other).startswith(f"{name}/") for other in names) for name in blamed)


def test_the_names_of_many_equal_urls_are_planned_quickly_and_differ() -> None:
    names = _plan_names(f"{ORIGIN}{n}/index.html" for n in range(10_000))
    assert names[-1] == "index-10000.html"
    assert len(set(names)) == len(names)


@NO_CLOCK
@given(NASTY)
def test_no_name_leaves_its_directory_hides_or_is_too_long(path: str) -> None:
    name = PORTABLE.from_url(ORIGIN + quote(path, safe="/\\"))
    assert name
    assert not set(name) & {"/", "\\", "\0"}
    assert not name.startswith(".")
    assert not name.endswith((".", " "))
    assert len(name.encode()) <= MAX_PORTABLE_BYTES
    assert not any(unicodedata.category(character)[0] == "C" for character in name)


@NO_CLOCK
@given(st.text(max_size=50))
def test_an_invalid_url_has_a_safe_name_too(text: str) -> None:
    name = PORTABLE.from_url(text)
    assert name
    assert not set(name) & {"/", "\\", "\0"}
    assert not name.startswith(".")


@NO_CLOCK
@given(st.lists(NASTY, max_size=12))
def test_no_two_files_of_a_job_share_a_name(paths: list[str]) -> None:
    urls = [ORIGIN + quote(path) for path in paths]
    names = _plan_names(urls)
    assert len({fold_name(name) for name in names}) == len(urls)
    assert all(len(name.encode()) <= MAX_PORTABLE_BYTES for name in names)
    assert names == _plan_names(urls)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b/.zgroup", ".zgroup"),
        ("dt=2026-11-22T00:00:00", "dt=2026-11-22T00:00:00"),
        ("con.txt", "con.txt"),
        ("x..", "x.."),
        ("a%5Cb%0Ac%20", "a\\b\nc "),
        ("re%CC%81", "re\u0301"),
        ("a/..%2f..%2fpasswd", "passwd"),
        ("a/%2e%2e", "file"),
        ("", "file"),
        ("folder/", "folder"),
        ("x" * 255, "x" * 255),
    ],
)
def test_a_faithful_name_is_the_last_segment_itself(path: str, expected: str) -> None:
    url = ORIGIN + path
    name = FAITHFUL.from_url(url)
    assert name == expected
    assert original_name(url, name) == ""


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a%00b", "NUL"),
        ("x" * 256, "longer than 255 bytes"),
        (".0123456789ab.7", "partial file of a running job"),
        (".0123456789ab-0.1.x..part", "partial file of a running job"),
    ],
)
def test_a_url_whose_name_cannot_exist_is_refused(path: str, reason: str) -> None:
    with pytest.raises(NameRefused, match=reason):
        FAITHFUL.from_url(ORIGIN + path)
    assert PORTABLE.from_url(ORIGIN + path)


def test_faithful_names_are_numbered_only_if_they_are_equal() -> None:
    paths = ["Case", "case", "x/case", "re%CC%81", "r%C3%A9"]
    assert _plan_names([ORIGIN + path for path in paths], FAITHFUL) == [
        *("Case", "case", "case-2", "re\u0301", "r\xe9"),
    ]
    assert FAITHFUL.folder_conflicts(["A", "a/b"]) == ["", ""]


def test_the_original_name_of_a_renamed_file_is_known() -> None:
    url = ORIGIN + "a/.zgroup"
    assert original_name(url, PORTABLE.from_url(url)) == ".zgroup"


@NO_CLOCK
@given(NASTY)
def test_a_faithful_key_is_itself_or_refused(key: str) -> None:
    try:
        name = FAITHFUL.from_key(key)
    except NameRefused:
        return
    assert name == key
    assert "\0" not in name
    assert not {"", ".", ".."} & set(name.split("/"))
