"""The index of what was fetched survives kills, and is believed only while the file is unchanged."""

import dataclasses
import os
import threading
from pathlib import Path

import pytest

from cacheapp.downloads.storage.sync_index import SyncedFile, SyncIndex, set_modified

MOMENT = "Sun, 22 Nov 2026 10:00:00 GMT"


def _saved(directory: Path, name: str, content: bytes = b"content") -> SyncedFile:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    mtime_ns = set_modified(path, MOMENT)
    return SyncedFile(name, f"https://a/{name}", len(content), mtime_ns, '"1"', MOMENT)


def _loaded(directory: Path) -> SyncIndex:
    found = SyncIndex(directory, "scope")
    found.load()
    return found


def _index_file(directory: Path) -> Path:
    (path,) = directory.glob(".*.sync")
    return path


def test_a_later_process_finds_what_was_recorded(tmp_path: Path) -> None:
    index = _loaded(tmp_path)
    saved = [_saved(tmp_path, name) for name in ("a", "sub/é")]
    for file in saved:
        index.append(file)
    index.close()
    later = _loaded(tmp_path)
    assert [later.current(it.name, it.url) for it in saved] == saved
    assert later.current("a", "https://other/a") is None
    assert (tmp_path / "a").stat().st_mtime == 1_795_341_600


def test_a_file_that_was_changed_or_is_missing_is_not_current(tmp_path: Path) -> None:
    index = _loaded(tmp_path)
    for name in "abcd":
        index.append(_saved(tmp_path, name))
    (tmp_path / "a").write_bytes(b"CONTENT")  # another time
    (tmp_path / "b").unlink()
    (tmp_path / "c").unlink()
    (tmp_path / "c").symlink_to(tmp_path / "d")
    os.truncate(tmp_path / "d", 3)
    set_modified(tmp_path / "d", MOMENT)  # another size
    assert [index.current(name, f"https://a/{name}") for name in "abcd"] == [None] * 4


def test_verifying_notices_bytes_that_were_changed_in_secret(tmp_path: Path) -> None:
    index = _loaded(tmp_path)
    index.append(dataclasses.replace(_saved(tmp_path, "a"), sha256="ab" * 32))
    assert index.current("a", "https://a/a") is not None
    assert index.current("a", "https://a/a", verify=True) is None


@pytest.mark.parametrize("end", [b"", b"[", b'["c","https://a/c",7', b"\0" * 300, b"[1,2]\n"])
def test_a_torn_or_damaged_line_costs_only_itself(tmp_path: Path, end: bytes) -> None:
    index = _loaded(tmp_path)
    index.append(_saved(tmp_path, "a"))
    index.close()
    with _index_file(tmp_path).open("ab") as file:
        file.write(end)  # a process was killed here
    later = _loaded(tmp_path)
    later.append(_saved(tmp_path, "b"))
    later.close()
    assert sorted(_loaded(tmp_path).files) == ["a", "b"]


def test_every_cut_of_the_index_leaves_only_whole_records(tmp_path: Path) -> None:
    index = _loaded(tmp_path)
    for name in "abc":
        index.append(_saved(tmp_path, name))
    index.close()
    path = _index_file(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = _loaded(tmp_path)
        assert all(index.files[name] == file for name, file in found.files.items())
        assert len(found.files) >= whole[:length].count(b"\n") - 1


def test_the_last_record_of_a_name_counts_and_an_index_does_not_grow_for_ever(
    tmp_path: Path,
) -> None:
    saved = _saved(tmp_path, "a")
    index = _loaded(tmp_path)
    for number in range(1500):
        index.append(dataclasses.replace(saved, etag=f'"{number}"'))
    index.close()
    assert _loaded(tmp_path).files["a"].etag == '"1499"'
    assert _index_file(tmp_path).read_bytes().count(b"\n") == 1  # it was rewritten
    assert _loaded(tmp_path).files["a"].etag == '"1499"'


def test_threads_append_whole_lines(tmp_path: Path) -> None:
    saved = _saved(tmp_path, "a")
    index = _loaded(tmp_path)

    def append(number: int) -> None:
        for each in range(100):
            index.append(dataclasses.replace(saved, name=f"{number}/{each}"))

    threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index.close()
    assert len(_loaded(tmp_path).files) == 800


@pytest.mark.parametrize("text", ["", "yesterday", "Sun, 99 Nov 2026 10:00:00 GMT", "0" * 999])
def test_an_invalid_date_leaves_the_time_of_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    before = path.stat().st_mtime_ns
    assert set_modified(path, text) == path.stat().st_mtime_ns == before
