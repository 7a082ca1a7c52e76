"""A prefix of a real S3 API (moto's server): listing, signing, sub-paths, hostile keys."""

import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.runners.bucket_opener import BucketOpener, LimitedBucket
from cacheapp.downloads.sources.base import ListingTooLong, SourceEntry, SourceRefused
from cacheapp.downloads.sources.s3 import S3Source
from tests.integration.downloads.s3_store import Handler, Store, running_store
from tests.proxy import Proxy

pytestmark = pytest.mark.django_db(transaction=True)

OBJECTS = 2000
HOSTILE = ["pre/../../evil", "pre/a//b", "pre/.0123456789ab.1/x", "pre/./z"]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_store() as found:
        yield found


def _body(number: int) -> bytes:
    return hashlib.shake_256(b"%d" % number).digest(100 + number % 50)


def _path(number: int) -> str:
    return f"{number % 7}/{number % 11}/file {number}+é.bin"


def test_a_prefix_of_2000_objects_in_folders_arrives_with_every_digest_right(
    store: Store, tmp_path: Path
) -> None:
    for number in range(OBJECTS):
        store.put(f"many/{_path(number)}", _body(number))
    store.put("many/folder/", b"")
    store.put("manyother", b"not below the prefix")
    Handler.asked.clear()
    call_command(
        *("download", "s3://files/many/", "--to", str(tmp_path / "to")),
        *("--endpoint", store.endpoint, "--threads", "16", "--json"),
    )
    found = {
        str(path.relative_to(tmp_path / "to")): path.read_bytes()
        for path in (tmp_path / "to").rglob("*")
        if path.is_file()
    }
    assert found == {_path(number): _body(number) for number in range(OBJECTS)}
    digests = dict(DownloadFile.objects.values_list("name", "sha256"))
    assert digests == {
        _path(number): hashlib.sha256(_body(number)).hexdigest() for number in range(OBJECTS)
    }
    asked = list(Handler.asked)
    methods = [method for method, _, _ in asked]
    assert set(methods) == {"GET"}  # no HEAD
    # The second page was requested only after a file of the first.
    listings = [path for _, path, _ in asked if "list-type=2" in path]
    assert len(listings) == 3  # 2,001 keys, a thousand per page
    gets = [headers for _, path, headers in asked if "list-type=2" not in path]
    assert len(gets) == OBJECTS
    assert all(headers["if-match"].startswith('"') for headers in gets)
    assert all("AWS4-HMAC-SHA256" in headers["authorization"] for headers in gets)


def test_a_hostile_key_is_one_failed_file(store: Store, tmp_path: Path) -> None:
    for key in [*HOSTILE, "pre/good", "pre/Good"]:
        store.put(key, key.encode())
    target = tmp_path / "a" / "b" / "c"
    with pytest.raises(CommandError, match="4 of 6 files failed") as caught:
        call_command(
            *("download", "s3://files/pre/", "--to", str(target)),
            *("--endpoint", store.endpoint, "--json"),
        )
    assert caught.value.returncode == 1
    assert sorted(path.name for path in target.iterdir()) == ["Good", "good"]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
    errors = DownloadFile.objects.filter(state="failed").values_list("error", flat=True)
    assert len(errors) == 4
    assert all(error.startswith("the name has") for error in errors)


def test_a_zarr_or_spark_store_keeps_its_names(store: Store, tmp_path: Path) -> None:
    keys = [
        *(
            ".zgroup",
            "x/.zarray",
            "dt=2026-11-22T00:00:00/part-0",
            "con.txt",
            "x..",
            "Case",
            "case",
        ),
        *("a\\b", "n" * 255, "re\u0301", "r\xe9"),
    ]
    for key in keys:
        store.put(f"zarr/{key}", key.encode())
    call_command(
        *("download", "s3://files/zarr/", "--to", str(tmp_path), "--endpoint", store.endpoint)
    )
    found = {str(it.relative_to(tmp_path)): it for it in tmp_path.rglob("*") if it.is_file()}
    assert found.keys() == set(keys)
    assert all(path.read_bytes() == key.encode() for key, path in found.items())


def test_portable_names_are_an_option_that_lists_what_it_changed(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in (".zgroup", "Case", "case", "plain"):
        store.put(f"port/{key}", key.encode())
    call_command(
        *("download", "s3://files/port/", "--to", str(tmp_path), "--endpoint", store.endpoint),
        *("--portable-names", "--json"),
    )
    assert {it.name for it in tmp_path.iterdir()} == {"_zgroup", "Case", "case-2", "plain"}
    found = json.loads(capsys.readouterr().out)
    assert found["files_renamed"] == 2
    assert [(it["original_name"], it["name"]) for it in found["renamed"]] == [
        *((".zgroup", "_zgroup"), ("case", "case-2")),
    ]


def test_listing_and_files_go_through_the_proxy_at_a_terminal_and_a_listing_alone_only_if_allowed(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.put("proxied/a", b"x")
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        command = ("download", "s3://files/proxied/", "--to", str(tmp_path))
        call_command(*command, "--endpoint", store.endpoint)
        targets = [target.partition("?")[0] for _, target in proxy.requests]
        assert {f"{store.endpoint}/files", f"{store.endpoint}/files/proxied/a"} == set(targets)
        message = f"Through the proxy {proxy.url}: the addresses of hosts cannot be checked"
        assert message in capsys.readouterr().err
        proxy.requests.clear()
        bucket = S3Source("s3://files/proxied/", endpoint=store.endpoint, proxied=False)
        assert len(list(bucket.entries())) == 1
        assert proxy.requests == []


def test_a_listing_continues_behind_its_cursor(store: Store) -> None:
    for name in "abc":
        store.put(f"marks/{name}", b"x")
    bucket = S3Source("s3://files/marks/", endpoint=store.endpoint)
    entries = [entry for entry in bucket.entries("marks/a") if isinstance(entry, SourceEntry)]
    assert [entry.cursor for entry in entries] == ["marks/b", "marks/c"]
    assert (entries[0].size, entries[0].name) == (1, "b")


def test_an_object_that_was_replaced_since_it_was_listed_is_taken_as_it_is(
    store: Store, tmp_path: Path
) -> None:
    store.put("moving/a", b"first")
    bucket = S3Source("s3://files/moving/", endpoint=store.endpoint)
    (entry,) = bucket.entries()
    assert isinstance(entry, SourceEntry)
    store.put("moving/a", b"second, and longer")
    call_command(
        *("download", "s3://files/moving/", "--to", str(tmp_path), "--endpoint", store.endpoint),
        "--json",
    )
    assert (tmp_path / "a").read_bytes() == b"second, and longer"


def test_the_checksums_of_s3_are_requested_and_verified(store: Store, tmp_path: Path) -> None:
    algorithms = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
    for name in algorithms:
        store.client.put_object(
            Bucket="files", Key=f"sums/{name}", Body=_body(1), ChecksumAlgorithm=name
        )
    words = ("download", "s3://files/sums/", "--endpoint", store.endpoint, "--json")
    call_command(*words, "--to", str(tmp_path / "right"))
    for name in algorithms:
        assert (tmp_path / "right" / name).read_bytes() == _body(1)
        store.spoil(f"sums/{name}")
    with pytest.raises(CommandError, match="5 of 5 files failed"):
        call_command(*words, "--to", str(tmp_path / "wrong"))
    errors = dict(DownloadFile.objects.filter(state="failed").values_list("name", "error"))
    for name in algorithms:
        assert errors[name].startswith(f"its {name.lower()} is ")
        assert f" from x-amz-checksum-{name.lower()}; tried 2 times" in errors[name]
    assert list((tmp_path / "wrong").iterdir()) == []


def test_a_missing_bucket_fails_the_job_with_the_reason(store: Store, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="NoSuchBucket"):
        call_command(
            *("download", "s3://nowhere/x", "--to", str(tmp_path)),
            *("--endpoint", store.endpoint, "--json"),
        )
    assert DownloadJob.objects.get().state == "failed"


def test_a_bucket_over_http_says_where_its_files_come_from_before_the_first(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neither region nor endpoint: botocore finds both, here in the environment.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.endpoint)
    buckets = {"s3://files/": {"anonymous": True}, "s3://nowhere/": {}}
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_BUCKETS": buckets}
    opened = threading.Event()
    opener = BucketOpener(opened.set)

    def take(source: str) -> LimitedBucket | None:
        opened.clear()
        job = DownloadJob(id=uuid.uuid4(), source=source, files_total=0)
        assert opener.take(job) is None
        assert opened.wait(60)
        return opener.take(job)

    found = take("s3://files/unplaced/")
    assert found is not None
    assert found.origin == store.endpoint
    store.put("unplaced/a", b"x")
    store.put("unplaced/b", b"x")
    names = found.entries()
    assert getattr(next(names), "name", "") == "a"
    found._max_files = 1  # noqa: SLF001 (it was created for the setting of the site)
    cut = r"see DOWNLOAD_MAX_FILES. 'b' and all files after it were left out"
    with pytest.raises(ListingTooLong, match=cut):
        list(found.entries())
    with pytest.raises(SourceRefused, match=r"finding s3://nowhere: .*NoSuchBucket"):
        take("s3://nowhere/")


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///x", "https://files/x", "s3://UPPER_CASE!/x", "s3://files/x?y#z"]
)
def test_an_invalid_bucket_url_is_refused(text: str) -> None:
    with pytest.raises(SourceRefused):
        S3Source(text, endpoint="http://127.0.0.1:1")


def test_only_selected_objects_get_rows_and_files(
    store: Store, tmp_path: Path, settings: Settings
) -> None:
    for key in ("a.csv", "b.txt", "sub/c.csv", "tmp/d.csv"):
        store.put(f"chosen/{key}", key.encode())
    words = ("download", "s3://files/chosen/", "--to", str(tmp_path), "--endpoint", store.endpoint)
    call_command(*words, "--include", "*.csv", "--exclude", "tmp/*")
    found = {str(it.relative_to(tmp_path)) for it in tmp_path.rglob("*") if it.is_file()}
    assert found == {"a.csv", "sub/c.csv"}
    assert set(DownloadFile.objects.values_list("name", flat=True)) == found
    with pytest.raises(CommandError, match="expected s3://bucket/prefix"):
        call_command("download", "http://127.0.0.1/x", "--to", str(tmp_path), "--include", "*")
    # Over HTTP, what is not selected does not count for the limit.
    place = {"endpoint": store.endpoint}
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DOWNLOAD_BUCKETS": {"s3://files/": place},
        "DOWNLOAD_MAX_FILES": 1,
    }
    opened = threading.Event()
    opener = BucketOpener(opened.set)
    job = DownloadJob(
        id=uuid.uuid4(), source="s3://files/chosen/", files_total=0, include=["b*"], exclude=[]
    )
    assert opener.take(job) is None
    assert opened.wait(60)
    bucket = opener.take(job)
    assert bucket is not None
    assert [it.name for it in bucket.entries() if isinstance(it, SourceEntry)] == ["b.txt"]
