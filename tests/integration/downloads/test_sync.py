"""`manage.py download --sync` fetches what has changed, and deletes only what it may."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.management import CommandError, call_command

from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.sources.s3 import ListingFailed, S3Source
from cacheapp.downloads.storage.sync_index import SyncIndex
from tests.integration.downloads.s3_store import Handler, Store, running_store
from tests.objects import Thing, Version
from tests.origin import Origin

pytestmark = pytest.mark.django_db(transaction=True)

OLD_S, NEW_S = 1_700_000_000.0, 1_700_000_100.0
Sync = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_store() as found:
        yield found


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "to"


@pytest.fixture
def sync(capsys: pytest.CaptureFixture[str], to: Path, store: Store) -> Sync:
    """Return a function that synchronises, and returns what the command prints with --json."""

    def run(*args: str, fails: str | None = None) -> dict[str, Any]:
        words = ["download", *args, "--to", str(to), "--sync", "--json"]
        words += ["--endpoint", store.endpoint, "--allow", "127.0.0.0/8"]
        if fails is None:
            call_command(*words)
        else:
            with pytest.raises(CommandError, match=fails):
                call_command(*words)
        out = capsys.readouterr().out
        return dict(json.loads(out)) if out else {}

    return run


def _files(to: Path) -> dict[str, bytes]:
    """Return the files, but not the index."""
    found = (path for path in to.rglob("*") if path.is_file() and path.suffix != ".sync")
    return {str(path.relative_to(to)): path.read_bytes() for path in found}


def _gets() -> list[str]:
    return [path for _, path, _ in Handler.asked if "list-type=2" not in path]


# A prefix.


def test_a_prefix_is_fetched_again_only_where_it_has_changed(
    store: Store, sync: Sync, to: Path
) -> None:
    for name in ("same", "new-content", "removed-here", "changed-here"):
        store.put(f"sync1/{name}", b"first " + name.encode())
    first = sync("s3://files/sync1/")
    assert (first["files_done"], first["files_unchanged"]) == (4, 0)
    listed = store.client.head_object(Bucket="files", Key="sync1/same")["LastModified"]
    assert (to / "same").stat().st_mtime == listed.timestamp()
    store.put("sync1/new-content", b"FIRST new-content")  # of the same size
    store.put("sync1/added", b"new")
    (to / "removed-here").unlink()
    (to / "changed-here").write_bytes(b"XXXXX changed-here")
    Handler.asked.clear()
    second = sync("s3://files/sync1/")
    assert (second["files_done"], second["files_unchanged"]) == (4, 1)
    assert sorted(path.rpartition("/")[2] for path in _gets()) == [
        *("added", "changed-here", "new-content", "removed-here"),
    ]
    assert _files(to) == {
        "same": b"first same",
        "new-content": b"FIRST new-content",
        "removed-here": b"first removed-here",
        "changed-here": b"first changed-here",
        "added": b"new",
    }
    assert not DownloadFile.objects.filter(job=second["id"], name="same").exists()
    third = sync("s3://files/sync1/")
    assert (third["state"], third["files_total"], third["files_unchanged"]) == ("succeeded", 0, 5)


def test_only_what_was_saved_and_is_gone_from_the_source_is_deleted(
    store: Store, sync: Sync, to: Path, tmp_path: Path
) -> None:
    for name in ("kept", "gone", "deep/er/gone", "edited", "tmp/excluded"):
        store.put(f"sync2/{name}", name.encode())
    sync("s3://files/sync2/")
    (to / "mine").write_bytes(b"never in the source")
    (to / "edited").write_bytes(b"work of a person")
    for name in ("gone", "deep/er/gone", "edited", "tmp/excluded"):
        store.client.delete_object(Bucket="files", Key=f"sync2/{name}")
    assert sync("s3://files/sync2/")["files_deleted"] is None
    assert len(_files(to)) == 6  # not without --delete
    found = sync("s3://files/sync2/", "--delete", "--exclude", "tmp/*")
    assert found["deleted"] == ["deep/er/gone", "gone"]
    assert set(_files(to)) == {"kept", "mine", "edited", "tmp/excluded"}
    assert not (to / "deep").exists()
    found = sync("s3://files/sync2/", "--delete-all", "--exclude", "tmp/*")
    assert found["deleted"] == ["edited", "mine"]
    assert set(_files(to)) == {"kept", "tmp/excluded"}


def test_nothing_is_deleted_if_the_listing_fails_or_is_empty_or_a_file_failed(
    store: Store, sync: Sync, to: Path
) -> None:
    store.put("sync3/a", b"a")
    store.put("sync3/b", b"b")
    sync("s3://files/sync3/")
    store.client.delete_object(Bucket="files", Key="sync3/a")
    stock, calls = S3Source.entries, []

    def entries(source: S3Source, after: str = "") -> Iterator[Any]:
        calls.append(after)
        for number, found in enumerate(stock(source, after)):
            if len(calls) == 2 and number == 0:
                raise ListingFailed("the second page was not received")
            yield found

    with mock.patch.object(S3Source, "entries", entries):
        sync("s3://files/sync3/", "--delete", fails="nothing is deleted: the second page")
    assert len(calls) == 2
    store.put("sync3/../out", b"refused")
    found = sync("s3://files/sync3/", "--delete", fails="1 of 1 files failed")
    assert found["deleted"] == []
    store.client.delete_object(Bucket="files", Key="sync3/../out")
    store.client.delete_object(Bucket="files", Key="sync3/b")
    sync("s3://files/sync3/", "--delete", fails="the listing is empty")
    assert set(_files(to)) == {"a", "b"}


def test_a_folder_that_became_a_link_is_not_followed(
    store: Store, sync: Sync, to: Path, tmp_path: Path
) -> None:
    store.put("sync4/a", b"a")
    store.put("sync4/sub/x", b"x")
    sync("s3://files/sync4/")
    outside = tmp_path / "outside"
    (to / "sub").rename(outside)
    (to / "sub").symlink_to(outside)
    store.client.delete_object(Bucket="files", Key="sync4/sub/x")
    assert sync("s3://files/sync4/", "--delete")["deleted"] == []
    assert sync("s3://files/sync4/", "--delete-all")["deleted"] == []
    assert (outside / "x").read_bytes() == b"x"


def test_a_kill_before_the_record_costs_one_fetch(store: Store, sync: Sync, to: Path) -> None:
    for name in "ab":
        store.put(f"sync5/{name}", name.encode())
    with mock.patch.object(SyncIndex, "append", return_value=None):  # killed before each
        sync("s3://files/sync5/")
    assert sync("s3://files/sync5/")["files_done"] == 2
    assert sync("s3://files/sync5/")["files_unchanged"] == 2
    (index,) = to.glob(".*.sync")
    os.truncate(index, index.stat().st_size - 5)  # killed in the middle of the last line
    assert sync("s3://files/sync5/")["files_unchanged"] == 1
    assert sync("s3://files/sync5/")["files_unchanged"] == 2


def test_a_job_that_is_resumed_is_followed_by_one_with_a_new_listing(
    store: Store, sync: Sync, to: Path
) -> None:
    store.put("sync6/a", b"a")
    store.put("sync6/../b", b"refused")
    sync("s3://files/sync6/", fails="1 of 2 files failed")
    store.client.delete_object(Bucket="files", Key="sync6/../b")
    store.put("sync6/c", b"c")
    found = sync("s3://files/sync6/")
    assert (found["files_done"], found["files_unchanged"]) == (1, 1)
    assert set(_files(to)) == {"a", "c"}
    assert DownloadJob.objects.count() == 2


# A manifest.


def _manifest(tmp_path: Path, *lines: str) -> str:
    (tmp_path / "list").write_text("\n".join(lines))
    return str(tmp_path / "list")


@pytest.mark.parametrize("conditions", [True, False], ids=["conditional", "unconditional"])
def test_files_of_a_manifest_are_requested_with_the_version_on_disk(
    origin: Origin, sync: Sync, to: Path, tmp_path: Path, *, conditions: bool
) -> None:
    things = {
        "tag": Thing([Version(b"one", '"1"')], conditions=conditions),
        "date": Thing([Version(b"two", modified_s=OLD_S)], conditions=conditions),
        "none": Thing([Version(b"three")], conditions=conditions),
        "moves": Thing(
            [Version(b"old", '"1"', OLD_S), Version(b"new", '"2"', NEW_S)], conditions=conditions
        ),
    }
    origin.things.update(things)
    manifest = _manifest(tmp_path, *(f"{origin.url}/thing/{name}" for name in things))
    assert sync(manifest)["files_done"] == 4
    assert (to / "date").stat().st_mtime == OLD_S
    inodes = {name: (to / name).stat().st_ino for name in things}
    assert sync(manifest)["files_done"] == 4
    assert _files(to) == {"tag": b"one", "date": b"two", "none": b"three", "moves": b"new"}
    assert (to / "moves").stat().st_mtime == NEW_S
    kept = {name for name in things if (to / name).stat().st_ino == inodes[name]}
    assert {"tag", "date"} <= kept
    assert "moves" not in kept
    assert things["tag"].asked[1]["if-none-match"] == '"1"'
    assert "if-modified-since" in things["date"].asked[1]
    notes = dict(DownloadFile.objects.filter(error="unchanged").values_list("name", "bytes_done"))
    assert notes == {"tag": 3, "date": 3}


def test_an_edited_manifest_keeps_what_is_unchanged_and_deletes_what_it_dropped(
    origin: Origin, sync: Sync, to: Path, tmp_path: Path
) -> None:
    origin.things["sum"] = Thing([Version(b"a", '"1"')])
    origin.things["drop"] = Thing([Version(b"b", '"1"')])
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    with_sum, other = f"{origin.url}/thing/sum {digest}", f"{origin.url}/thing/drop"
    sync(_manifest(tmp_path, with_sum, other))
    found = sync(_manifest(tmp_path, with_sum, "# edited"), "--delete")
    assert (found["files_unchanged"], found["deleted"]) == (1, ["drop"])
    assert len(origin.things["sum"].asked) == 1  # its checksum says it all
    assert set(_files(to)) == {"sum"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--delete"], "--delete: expected --sync too"),
        (["--portable-names", "--sync"], "--sync: not with --portable-names"),
        (["skip", "--existing", "--sync"], "--sync replaces what has changed"),
        (["http://b.example/same/x", "--sync"], "have the same name 'x'"),
    ],
)
def test_options_that_do_not_fit_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("download", *reversed(words), "http://a.example/x")
    assert not DownloadJob.objects.exists()
