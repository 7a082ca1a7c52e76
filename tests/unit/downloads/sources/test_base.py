import itertools
from pathlib import Path

import pytest

from cacheapp.downloads.sources.base import Manifest, SourceEntry, SourceRefused, UrlList, batches
from cacheapp.downloads.storage.filenames import KeyRefused, name_key, path_from_key

SUM = "a" * 64


def _manifest(tmp_path: Path, text: str) -> Manifest:
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8")
    return Manifest(path)


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


def test_a_manifest_has_a_url_a_sum_and_a_name_to_a_line(tmp_path: Path) -> None:
    source = _manifest(
        tmp_path,
        f"# files\n\nhttps://a.example/1.bin\nhttps://a.example/2 {SUM.upper()}\n"
        f"https://a.example/3 {SUM} sub/my file.bin\n  https://a.example/4   other.bin  \n",
    )
    assert list(source.entries()) == [
        SourceEntry("3", "https://a.example/1.bin", "1.bin"),
        SourceEntry("4", "https://a.example/2", "2", SUM),
        SourceEntry("5", "https://a.example/3", "sub/my file.bin", SUM),
        SourceEntry("6", "https://a.example/4", "other.bin"),
    ]
    assert [entry.cursor for entry in source.entries("4") if isinstance(entry, SourceEntry)] == [
        "5",
        "6",
    ]


def test_a_manifest_that_was_edited_is_another_source(tmp_path: Path) -> None:
    first = _manifest(tmp_path, "https://a.example/1\n").identity
    assert _manifest(tmp_path, "https://a.example/1\n").identity == first
    assert _manifest(tmp_path, "https://a.example/2\n").identity != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://a/1\nftp://a/2\n/etc/passwd\n", "line 2: ftp://a/2: scheme is 'ftp'"),
        ("https://a/1 ../x\n", "line 1: name '../x': the key has . or .. as a folder"),
        ("https://a/1 /etc/x\n", "line 1: name '/etc/x': the key begins with /"),
        ("# nothing\n\n", "no line names a URL"),
        ("", "no line names a URL"),
    ],
)
def test_a_bad_manifest_is_refused_with_its_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        _manifest(tmp_path, text)
    assert message in str(caught.value)


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="No such file or directory"):
        Manifest(tmp_path / "gone.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    with pytest.raises(SourceRefused, match="is not UTF-8"):
        Manifest(tmp_path / "binary")


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
        ("/".join(["a" * 100] * 11), "longer than 200 bytes"),
    ],
)
def test_a_hostile_key_is_refused_with_the_reason(key: str, reason: str) -> None:
    with pytest.raises(KeyRefused) as caught:
        path_from_key(key)
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
    assert path_from_key(key) == path


def test_names_that_some_file_system_takes_for_one_have_one_key() -> None:
    assert name_key("a/B.txt") == name_key("A/b.TXT")
    assert name_key("re\u0301e") == name_key("r\xe9e")
    assert name_key("a") != name_key("b")


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
