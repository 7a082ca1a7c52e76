from pathlib import Path

import pytest

from cacheapp.conf import read

ORIGIN = "https://files.example.com"


def test_headers_are_read_from_the_environment_a_file_or_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("from the file\n")
    monkeypatch.setenv("FILES_TOKEN", "secret")
    found, mistakes = read(
        {
            "DOWNLOAD_HEADERS": {
                ORIGIN: {
                    "Authorization": {"env": "FILES_TOKEN", "prefix": "Bearer "},
                    "X-Api-Key": {"file": str(tmp_path / "key")},
                    "Accept": "text/plain",
                }
            }
        }
    )
    assert mistakes == []
    (headers,) = found.download_headers
    assert headers.origin == f"{ORIGIN}:443"
    assert {name: value.read() for name, value in headers.headers} == {
        "Authorization": "Bearer secret",
        "X-Api-Key": "from the file",
        "Accept": "text/plain",
    }
    assert "text/plain" not in repr(found)


@pytest.mark.parametrize(
    "value",
    [
        "secret",
        {"files.example.com": {"A": "secret"}},
        {ORIGIN: "secret"},
        {ORIGIN: {}},
        {ORIGIN: {"A b": "secret"}},
        {ORIGIN: {"Host": "secret"}},
        {ORIGIN: {"range": "secret"}},
        {ORIGIN: {"A": "secret\r\nB: c"}},
        {ORIGIN: {"A": {"env": 7}}},
        {ORIGIN: {"A": {"env": "X", "file": "secret"}}},
        {ORIGIN: {"A": {"value": "secret"}}},
        {ORIGIN: {"A": "secret", "a": "secret"}},
        {ORIGIN: {"A": "secret"}, f"{ORIGIN}:443": {"A": "secret"}},
    ],
    ids=repr,
)
def test_what_is_no_header_is_refused_without_its_value(value: object) -> None:
    _, mistakes = read({"DOWNLOAD_HEADERS": value})
    (mistake,) = mistakes
    assert mistake.startswith("CACHEAPP['DOWNLOAD_HEADERS'] is of type ")
    assert "secret" not in mistake


@pytest.mark.parametrize("content", [None, "", "two\nlines", "b\xe9"])
def test_a_value_that_cannot_be_sent_is_an_error_without_the_value(
    content: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    found, _ = read({"DOWNLOAD_HEADERS": {ORIGIN: {"A": {"file": str(path)}}}})
    with pytest.raises(ValueError, match=str(path)) as caught:
        found.download_headers[0].headers[0][1].read()
    assert not content or content not in str(caught.value)
