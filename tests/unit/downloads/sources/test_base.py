import itertools

import pytest

from cacheapp.downloads.sources.base import SourceEntry, SourceRefused, UrlList, batches
from cacheapp.downloads.storage.filenames import PORTABLE, NameRefused


def test_urls_are_files_named_by_their_last_segment() -> None:
    source = UrlList(["https://a.example/x/1.bin", "http://b.example/"])
    assert list(source.entries()) == [
        SourceEntry("1", "https://a.example/x/1.bin", "1.bin"),
        SourceEntry("2", "http://b.example/", "file"),
    ]
    assert [entry.cursor for entry in source.entries("1") if isinstance(entry, SourceEntry)] == [
        "2"
    ]


def test_all_bad_urls_are_named_at_once() -> None:
    with pytest.raises(SourceRefused) as caught:
        UrlList(["ftp://a/", "https://good.example/", "https://u:p@x/", *["x"] * 30])
    assert "ftp://a/: scheme is 'ftp'" in str(caught.value)
    assert "https://u:p@x/: has a user name or password" in str(caught.value)
    assert str(caught.value).endswith("; and 12 more")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("../evil", "would leave the directory"),
        ("a/../../evil", "would leave the directory"),
        ("a/./b", "would leave the directory"),
        ("..", "would leave the directory"),
        ("/etc/passwd", "an absolute path"),
        ("//etc/passwd", "an absolute path"),
        ("a//b", "an empty folder or name"),
        ("a/", "an empty folder or name"),
        ("", "an empty folder or name"),
        ("a\\..\\b", "a backslash"),
        ("C:/x", "a drive letter"),
        ("c:x", "a drive letter"),
        ("a\0b", "control or invisible"),
        ("a\nb", "control or invisible"),
        ("exe\u202efdp.sh", "control or invisible"),
        ("\ud800", "control or invisible"),
        ("a" * 201, "longer than 200 bytes"),
        ("é" * 101, "longer than 200 bytes"),
        ("/".join(["a" * 100] * 11), "longer than 1024 bytes"),
    ],
)
def test_a_hostile_key_is_refused_with_the_reason(key: str, reason: str) -> None:
    with pytest.raises(NameRefused) as caught:
        PORTABLE.from_key(key)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b/c.bin", "a/b/c.bin"),
        ("2026-11-22T10:00:00.json", "2026-11-22T10_00_00.json"),
        (".ssh/authorized_keys", "_ssh/authorized_keys"),
        ("a/.0123456789ab-1.1.x..part", "a/_0123456789ab-1.1.x..part"),
        ("a/con/nul.txt", "a/_con/_nul.txt"),
        ("a/b. ", "a/b"),
        ("...", "file"),
        ("re\u0301e", "r\xe9e"),
    ],
)
def test_a_key_that_is_only_unusual_is_made_safe(key: str, path: str) -> None:
    assert PORTABLE.from_key(key) == path


def test_names_that_some_file_system_takes_for_one_have_one_key() -> None:
    assert PORTABLE.key("a/B.txt") == PORTABLE.key("A/b.TXT")
    assert PORTABLE.key("re\u0301e") == PORTABLE.key("r\xe9e")
    assert PORTABLE.key("a") != PORTABLE.key("b")


def test_batches_are_read_lazily() -> None:
    read = itertools.count()
    entries = (SourceEntry(str(next(read)), "u", "n") for _ in range(10**9))
    lots = batches(entries, 3)
    assert [entry.cursor for entry in next(lots)[0]] == ["0", "1", "2"]
    assert next(read) == 3


def test_places_without_a_file_move_the_cursor_too() -> None:
    entries: list[SourceEntry | str] = [
        SourceEntry("a", "u", "n"),
        "b/",
        SourceEntry("c", "u", "n"),
        "d/",
    ]
    assert [(len(lot), cursor) for lot, cursor in batches(entries, 1)] == [
        *((1, "a"), (1, "c"), (0, "d/")),
    ]
