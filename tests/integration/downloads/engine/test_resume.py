"""Resuming from the bytes on disk, without ever mixing two objects in one file."""

import base64
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from cacheapp.downloads.engine.transfer import Transfer
from cacheapp.downloads.engine.transfer_options import (
    Buffer,
    FetchedFile,
    TransferLimits,
    TransferOptions,
)
from cacheapp.downloads.http import connections
from cacheapp.downloads.http.errors import TransferAborted, TransferFailed
from cacheapp.downloads.http.url_policy import UrlPolicy
from cacheapp.downloads.storage.checksums import Checksum, parse_checksum
from cacheapp.downloads.storage.partial import PartialName, find_leftovers
from tests.objects import Thing, Version
from tests.origin import Origin, body

JOB = "0123456789ab"
SIZE = 900_000
OLD = body({"n": "1", "bytes": str(SIZE)})
NEW = body({"n": "2", "bytes": str(SIZE)})
CUT = 400_000
V1, V2 = Version(OLD, '"v1"'), Version(NEW, '"v2"')


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def client() -> Iterator[urllib3.PoolManager]:
    manager = connections.pool_manager(threads=2)
    yield manager
    manager.clear()


class Case:
    """A file to fetch, over any number of runs and attempts."""

    def __init__(self, origin: Origin, client: urllib3.PoolManager, directory: Path) -> None:
        self._origin, self._client, self.directory = origin, client, directory
        self._tokens = itertools.count(1)
        self.thing = Thing([])

    def serve(self, thing: Thing) -> None:
        self.thing = self._origin.things[self.directory.name] = thing

    def transfer(self, etag: str = "", size: int | None = None, *sums: Checksum) -> Transfer:
        """Return a transfer of a new run, with the partial file found on disk."""
        url = f"{self._origin.url}/thing/{self.directory.name}"
        stem = PartialName(self.directory, JOB, 0, next(self._tokens))
        left = find_leftovers(self.directory, JOB).get(0)
        target = self.directory / "name"
        wanted = TransferOptions(url, target, stem, sums, size=size, etag=etag, leftover=left)
        limits = TransferLimits(max_bytes=10**7, read_s=30)
        return Transfer(wanted, UrlPolicy(frozenset([self._origin.url])), limits)

    def fetch(self, transfer: Transfer) -> FetchedFile:
        return transfer.run(self._client, Buffer())

    def fetch_badly(self, transfer: Transfer, *, again: bool = True) -> str:
        with pytest.raises(TransferFailed) as caught:
            self.fetch(transfer)
        assert caught.value.retryable is again
        return str(caught.value)

    def stop_half_way(self) -> None:
        """Make a run whose response is truncated, and which is stopped before its next attempt."""
        transfer = self.transfer()
        self.fetch_badly(transfer)
        transfer.abort("stopped", keep=True)

    def ranges(self) -> list[str | None]:
        return [fields.get("range") for fields in self.thing.asked]

    def assert_only(self, expected: bytes) -> None:
        assert [path.name for path in self.directory.iterdir()] == ["name"]
        assert (self.directory / "name").read_bytes() == expected


@pytest.fixture
def case(origin: Origin, client: urllib3.PoolManager, tmp_path: Path) -> Case:
    return Case(origin, client, tmp_path)


def test_the_next_try_resumes_where_the_last_one_ended(case: Case) -> None:
    case.serve(Thing([V1], cuts=[CUT, 300_000]))
    transfer = case.transfer()
    assert case.fetch_badly(transfer) == f"ended after {CUT} of {SIZE} bytes"
    assert transfer.bytes_done == CUT
    assert case.fetch_badly(transfer) == f"ended after {CUT + 300_000} of {SIZE} bytes"
    assert case.fetch(transfer) == FetchedFile(SIZE, hashlib.sha256(OLD).hexdigest())
    assert case.ranges() == [None, f"bytes={CUT}-", f"bytes={CUT + 300_000}-"]
    assert [fields.get("if-range") for fields in case.thing.asked] == [None, '"v1"', '"v1"']
    case.assert_only(OLD)


def test_a_later_run_resumes_from_the_disk_alone(case: Case) -> None:
    case.serve(Thing([V1], cuts=[CUT]))
    case.stop_half_way()
    (partial,) = case.directory.iterdir()
    assert partial.stat().st_size == CUT
    transfer = case.transfer()
    assert case.fetch(transfer) == FetchedFile(SIZE, hashlib.sha256(OLD).hexdigest())
    assert case.ranges() == [None, f"bytes={CUT}-"]
    case.assert_only(OLD)


def test_a_late_owner_cannot_write_into_the_file_of_the_next(case: Case) -> None:
    case.serve(Thing([V1], cuts=[CUT]))
    case.stop_half_way()
    (partial,) = case.directory.iterdir()
    with partial.open("r+b") as late:  # suspended, with the file open
        transfer = case.transfer()
        case.fetch(transfer)
        late.write(b"garbage")
    case.assert_only(OLD)


@pytest.mark.parametrize("between", ["tries", "runs"])
@pytest.mark.parametrize(
    "how",
    [
        pytest.param({}, id="if-range"),
        pytest.param({"if_range": False}, id="if-range-ignored"),
        pytest.param({"ranges": False}, id="ranges-ignored"),
        pytest.param({"if_range": False, "lies": {"ETag": ""}}, id="no-proof"),
        pytest.param({"if_range": False, "lies": {"ETag": 'W/"v1"'}}, id="weak-proof"),
    ],
)
@pytest.mark.parametrize("size", [SIZE, CUT + 1, CUT, CUT - 1, 0])
def test_an_object_that_is_replaced_half_way_is_never_mixed(
    case: Case, between: str, how: dict[str, bool], size: int
) -> None:
    new = Version(NEW[:size], '"v2"')
    case.serve(Thing([V1, new], cuts=[CUT], **how))  # type: ignore[arg-type]
    if between == "runs":
        case.stop_half_way()
        transfer = case.transfer()
    else:
        transfer = case.transfer()
        case.fetch_badly(transfer)
    assert case.fetch(transfer) == FetchedFile(size, hashlib.sha256(NEW[:size]).hexdigest())
    case.assert_only(NEW[:size])


@pytest.mark.parametrize(
    "lies",
    [
        pytest.param({"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}, id="other-place"),
        pytest.param({"Content-Range": f"bytes {CUT}-{SIZE - 1}/{SIZE + 1}"}, id="other-length"),
        pytest.param({"Content-Range": "nonsense"}, id="nonsense"),
        pytest.param({"Content-Range": ""}, id="absent"),
    ],
)
def test_a_wrong_content_range_restarts_the_file(case: Case, lies: dict[str, str]) -> None:
    case.serve(Thing([V1], cuts=[CUT], lies=lies))
    transfer = case.transfer()
    case.fetch_badly(transfer)
    case.fetch(transfer)
    assert case.ranges() == [None, f"bytes={CUT}-", None]
    case.assert_only(OLD)


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(Version(OLD), id="none"),
        pytest.param(Version(OLD, 'W/"v1"'), id="weak-tag"),
        pytest.param(Version(OLD, None, time.time() + 3600), id="date-of-today"),
        pytest.param(Version(OLD, '"' + "v" * 150 + '"'), id="tag-too-long-for-a-name"),
    ],
)
def test_without_a_strong_validator_the_next_try_restarts_the_file(
    case: Case, version: Version
) -> None:
    case.serve(Thing([version], cuts=[CUT]))
    transfer = case.transfer()
    case.fetch_badly(transfer)
    assert list(case.directory.iterdir()) == []
    case.fetch(transfer)
    assert case.ranges() == [None, None]
    case.assert_only(OLD)


def test_an_old_date_is_a_validator_too(case: Case) -> None:
    case.serve(Thing([Version(OLD, None, 1_000_000_000.0)], cuts=[CUT]))
    case.stop_half_way()
    case.fetch(case.transfer())
    assert case.ranges() == [None, f"bytes={CUT}-"]
    assert case.thing.asked[1]["if-range"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    case.assert_only(OLD)


def _left_complete(case: Case, found: bytes, etag: str = '"v1"') -> None:
    """Leave the file of a run that was killed before it had verified the checksums."""
    PartialName(case.directory, JOB, 0, 1).path(SIZE, etag).write_bytes(found)
    next(case._tokens)  # noqa: SLF001 (the killed run had this one)


def test_a_file_that_was_complete_when_its_run_was_killed_is_not_fetched_again(case: Case) -> None:
    never = threading.Event()  # no more than half of a body is sent
    case.serve(Thing([V1], gate=never))
    _left_complete(case, OLD)
    assert case.fetch(case.transfer()).sha256 == hashlib.sha256(OLD).hexdigest()
    assert case.ranges() == [None]  # for its checksums; the body was not read
    case.assert_only(OLD)
    never.set()


def test_a_complete_file_with_a_given_checksum_is_not_requested(case: Case) -> None:
    case.serve(Thing([V1]))
    _left_complete(case, OLD)
    case.fetch(case.transfer("", None, parse_checksum(hashlib.sha256(OLD).hexdigest())))
    assert case.thing.asked == []
    case.assert_only(OLD)


MD5 = hashlib.md5(OLD, usedforsecurity=False)
SHA256 = base64.b64encode(hashlib.sha256(OLD).digest()).decode()


@pytest.mark.parametrize(
    ("etag", "headers", "teller"),
    [
        (f'"{MD5.hexdigest()}"', {}, "its ETag"),
        ('"v1"', {"Content-MD5": base64.b64encode(MD5.digest()).decode()}, "Content-MD5"),
        ('"v1"', {"Repr-Digest": f"sha-256=:{SHA256}:"}, "Repr-Digest"),
        ('"v1"', {"x-amz-checksum-sha256": SHA256}, "x-amz-checksum-sha256"),
    ],
)
def test_a_complete_file_with_wrong_bytes_fails_by_every_kind_of_checksum(
    case: Case, etag: str, headers: dict[str, str], teller: str
) -> None:
    case.serve(Thing([Version(OLD, etag, headers=headers)]))
    _left_complete(case, b"\0" * SIZE, etag)  # like a power cut
    transfer = case.transfer(etag, SIZE)
    assert f"from {teller}" in case.fetch_badly(transfer)
    case.fetch(transfer)
    assert case.ranges() == [None, None]
    case.assert_only(OLD)


def test_the_tag_of_an_encrypted_object_does_not_fail_a_complete_file(case: Case) -> None:
    etag = f'"{hashlib.md5(NEW, usedforsecurity=False).hexdigest()}"'
    by_key = {"x-amz-server-side-encryption": "aws:kms"}
    case.serve(Thing([Version(OLD, etag, headers=by_key)]))
    _left_complete(case, OLD, etag)
    case.fetch(case.transfer(etag, SIZE))
    assert case.ranges() == [None]
    case.assert_only(OLD)


@pytest.mark.parametrize("size", [SIZE, CUT])
def test_a_complete_file_of_an_object_that_was_replaced_is_fetched_as_it_is_now(
    case: Case, size: int
) -> None:
    case.serve(Thing([Version(NEW[:size], '"v2"')]))
    _left_complete(case, OLD)
    case.fetch(case.transfer('"v1"', SIZE))
    case.assert_only(NEW[:size])


def test_a_complete_file_waits_for_a_busy_origin(case: Case) -> None:
    case.serve(Thing([V1], refusals=["503 Service Unavailable"]))
    _left_complete(case, OLD)
    transfer = case.transfer()
    assert case.fetch_badly(transfer) == "responded with 503 Service Unavailable"
    case.fetch(transfer)
    assert case.ranges() == [None, None]
    case.assert_only(OLD)


def test_an_object_that_flips_back_is_not_mixed_with_what_was_in_between(case: Case) -> None:
    # Killed during the second version: the name of the partial file says which one it was.
    case.serve(Thing([V1, V2, V1], cuts=[CUT, CUT]))
    case.stop_half_way()
    transfer = case.transfer()
    case.fetch_badly(transfer)
    transfer.abort("killed", keep=True)
    case.fetch(case.transfer())
    case.assert_only(OLD)


def test_a_given_checksum_is_of_the_bytes_that_are_renamed(case: Case) -> None:
    wanted = parse_checksum(hashlib.sha256(OLD).hexdigest())
    damaged = bytearray(OLD[:CUT])
    damaged[7] ^= 1
    PartialName(case.directory, JOB, 0, 1).path(SIZE, '"v1"').write_bytes(
        damaged
    )  # like a power cut
    next(case._tokens)  # noqa: SLF001
    case.serve(Thing([V1]))
    transfer = case.transfer("", None, wanted)
    assert "its sha256 is" in case.fetch_badly(transfer)
    case.fetch(transfer)
    assert case.ranges() == [f"bytes={CUT}-", None]
    case.assert_only(OLD)


def test_a_wrong_checksum_fails_the_file_at_the_second_try(case: Case) -> None:
    wanted = parse_checksum(hashlib.sha256(NEW).hexdigest())
    case.serve(Thing([V1]))
    transfer = case.transfer("", None, wanted)
    assert "from the request" in case.fetch_badly(transfer)
    assert "from the request" in case.fetch_badly(transfer, again=False)
    assert list(case.directory.iterdir()) == []


def test_a_wrong_content_md5_fails_the_file(case: Case) -> None:
    wrong = base64.b64encode(hashlib.md5(NEW, usedforsecurity=False).digest()).decode()
    case.serve(Thing([Version(OLD, '"v1"', headers={"Content-MD5": wrong})]))
    assert "from Content-MD5" in case.fetch_badly(case.transfer())


def test_an_object_other_than_the_one_listed_is_taken_as_it_is_now(case: Case) -> None:
    case.serve(Thing([V2]))
    fetched = case.fetch(case.transfer('"v1"', 5))
    assert fetched.size == SIZE
    assert [fields.get("if-match") for fields in case.thing.asked] == ['"v1"', None]
    case.assert_only(NEW)


def test_a_listed_object_is_fetched_with_if_match(case: Case) -> None:
    etag = '"' + hashlib.md5(OLD, usedforsecurity=False).hexdigest() + '"'
    case.serve(Thing([Version(OLD, etag)], cuts=[CUT]))
    transfer = case.transfer(etag, SIZE)
    case.fetch_badly(transfer)
    case.fetch(transfer)
    assert [fields.get("if-match") for fields in case.thing.asked] == [etag, None]
    assert case.ranges() == [None, f"bytes={CUT}-"]
    case.assert_only(OLD)


NO_MD5 = '"' + hashlib.md5(NEW, usedforsecurity=False).hexdigest() + '"'


def test_a_tag_that_looks_like_another_md5_fails_no_file(case: Case) -> None:
    case.serve(Thing([Version(OLD, NO_MD5)], cuts=[CUT]))
    transfer = case.transfer(NO_MD5, SIZE)
    case.fetch_badly(transfer)
    case.fetch(transfer)
    assert case.ranges() == [None, f"bytes={CUT}-"]
    case.assert_only(OLD)


def test_bytes_of_an_earlier_run_that_do_not_match_the_tag_are_fetched_once_more(
    case: Case,
) -> None:
    case.serve(Thing([Version(OLD, NO_MD5)]))
    _left_complete(case, OLD, NO_MD5)
    transfer = case.transfer(NO_MD5, SIZE)
    assert "from its ETag" in case.fetch_badly(transfer)
    case.fetch(transfer)
    assert case.ranges() == [None, None]
    case.assert_only(OLD)


def test_a_listed_size_that_is_not_the_announced_one_fails_the_file(case: Case) -> None:
    case.serve(Thing([V1]))
    message = case.fetch_badly(case.transfer('"v1"', 5), again=False)
    assert message == f"has {SIZE} bytes; expected 5 as listed"


def test_an_object_that_keeps_changing_fails(case: Case) -> None:
    # Each response is the rest of another object: none of them are joined.
    versions = [Version(OLD, f'"{n}"') for n in range(20)]
    case.serve(Thing(versions, cuts=[CUT, *[None] * 9], if_range=False))
    transfer = case.transfer()
    case.fetch_badly(transfer)
    case.fetch(transfer)
    assert case.ranges() == [None, f"bytes={CUT}-", None]
    case.assert_only(OLD)


@pytest.mark.parametrize("keep", [True, False])
def test_an_abort_keeps_the_bytes_if_requested(case: Case, *, keep: bool) -> None:
    case.serve(Thing([V1], cuts=[CUT]))
    transfer = case.transfer()
    case.fetch_badly(transfer)
    transfer.abort("stopped", keep=keep)
    with pytest.raises(TransferAborted, match="stopped"):
        case.fetch(transfer)
    assert len(list(case.directory.iterdir())) == keep


def test_a_discarded_file_leaves_nothing(case: Case) -> None:
    case.serve(Thing([V1], cuts=[CUT], refusals=["", "404 Not Found"]))
    transfer = case.transfer()
    case.fetch_badly(transfer)
    assert case.fetch_badly(transfer, again=False) == "responded with 404 Not Found"
    assert len(list(case.directory.iterdir())) == 1  # for a retry
    transfer.discard()
    assert list(case.directory.iterdir()) == []


Refusal = Callable[[TransferFailed], object]


@pytest.mark.parametrize(
    ("head", "again", "slow_down", "retry_after_s"),
    [
        ("429 Too Many Requests\r\nRetry-After: 7", True, True, 7.0),
        ("503 Service Unavailable", True, True, None),
        ("500 Oops", True, False, None),
        ("408 Request Timeout", True, False, None),
        ("403 Forbidden", False, False, None),
        ("501 Not Implemented", False, False, None),
    ],
)
def test_the_scheduler_learns_which_failures_are_retryable(
    case: Case, head: str, retry_after_s: float | None, *, again: bool, slow_down: bool
) -> None:
    case.serve(Thing([V1], refusals=[head]))
    with pytest.raises(TransferFailed) as caught:
        case.fetch(case.transfer())
    found = caught.value
    assert (found.retryable, found.slow_down, found.retry_after_s) == (
        again,
        slow_down,
        retry_after_s,
    )
