"""`manage.py download`: what it fetches and prints, and how it resumes after Ctrl-C and a kill."""

import contextlib
import hashlib
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import rows
from cacheapp.downloads.jobs.actors import terminal_actor
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin, body

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[3]
WHOLE = body({"bytes": "3000000"})


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


Download = Callable[..., dict[str, Any]]


@pytest.fixture
def download(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Download:
    """Return a function that runs the command here, and returns what it prints with --json."""

    def run(*args: str, fails: str | None = None) -> dict[str, Any]:
        words = [
            "download",
            *args,
            "--to",
            str(tmp_path / "to"),
            "--allow",
            "127.0.0.0/8",
            "--json",
        ]
        if fails is None:
            call_command(*words)
        else:
            with pytest.raises(CommandError, match=fails) as caught:
                call_command(*words)
            assert caught.value.returncode == 1
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_a_manifest_is_fetched_with_its_sums_and_names(
    origin: Origin, download: Download, tmp_path: Path
) -> None:
    digests = [hashlib.sha256(body({"n": str(n)})).hexdigest() for n in range(3)]
    (tmp_path / "list").write_text(
        "# three files\n"
        + "".join(f"{origin.url}/file/{n}?n={n} {digests[n]} sub/{n}.bin\n" for n in range(3))
        + f"{origin.url}/file/bad {digests[1]}\n"
    )
    found = download(str(tmp_path / "list"), fails="1 of 4 files failed")
    assert (found["state"], found["files_total"], found["files_done"]) == ("failed", 4, 3)
    assert found["bytes_done"] == 3000
    (error,) = found["errors"]
    assert error["error"].endswith(f"expected {digests[1]} from the request; tried 2 times")
    for n in range(3):
        assert (tmp_path / "to" / "sub" / f"{n}.bin").read_bytes() == body({"n": str(n)})
    assert not list((tmp_path / "to").glob(".*"))


def test_the_output_of_sha256sum_on_standard_input_is_a_manifest(
    origin: Origin, download: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = body({})
    text = f"{hashlib.sha256(whole).hexdigest()}  one\nMD5 (two) = {hashlib.md5(whole, usedforsecurity=False).hexdigest()}\n{'0' * 64} *bad\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    found = download("-", "--base-url", f"{origin.url}/file", fails="1 of 3 files failed")
    assert [error["name"] for error in found["errors"]] == ["bad"]
    assert {path.name for path in (tmp_path / "to").iterdir()} == {"one", "two"}


def test_the_same_command_tries_again_what_failed_and_nothing_else(
    origin: Origin, download: Download, tmp_path: Path
) -> None:
    origin.things["late"] = Thing([Version(b"there", '"v"')], refusals=["404 Not Found"])
    urls = [f"{origin.url}/file/a", f"{origin.url}/thing/late"]
    first = download(*urls, fails="1 of 2 files failed")
    assert first["errors"][0]["error"] == "responded with 404 Not Found"
    before = len(origin.asked)
    second = download(*urls)
    assert (second["id"], second["state"], second["files_done"]) == (first["id"], "succeeded", 2)
    assert [path for _, path in origin.asked[before:]] == ["/thing/late"]
    assert (tmp_path / "to" / "late").read_bytes() == b"there"


def _bad_and_good(origin: Origin, tmp_path: Path) -> list[str]:
    origin.things["bad"] = Thing([Version(b"", '"v"')], refusals=["404 Not Found"] * 9)
    return [*(f"{origin.url}/file/{n}?n={n}" for n in "123"), f"{origin.url}/thing/bad"]


def test_files_that_were_deleted_or_cut_since_are_not_reported_as_complete(
    origin: Origin, download: Download, tmp_path: Path
) -> None:
    urls = _bad_and_good(origin, tmp_path)
    first = download(*urls, fails="1 of 4 files failed")
    assert first["files_done"] == 3
    (tmp_path / "to" / "1").unlink()
    (tmp_path / "to" / "2").write_bytes(b"cut")
    second = download(*urls, "--existing", "replace", fails="1 of 4 files failed")
    assert (second["id"], second["files_done"]) == (first["id"], 3)
    for n in "123":
        assert (tmp_path / "to" / n).read_bytes() == body({"n": n})
    (tmp_path / "to" / "1").unlink()
    (tmp_path / "to" / "2").write_bytes(b"cut")  # another program's file is not replaced
    third = download(*urls, fails="2 of 4 files failed")
    assert "2 already exists; it was not replaced" in {it["error"] for it in third["errors"]}


def test_a_changed_file_is_found_by_its_digest_on_request(
    origin: Origin, download: Download, tmp_path: Path
) -> None:
    urls = _bad_and_good(origin, tmp_path)
    download(*urls, fails="1 of 4 files failed")
    path = tmp_path / "to" / "2"
    path.write_bytes(bytes(reversed(path.read_bytes())))
    download(*urls, "--existing", "replace", fails="1 of 4 files failed")
    assert path.read_bytes() != body({"n": "2"})
    before = len(origin.asked)
    download(*urls, "--existing", "replace", "--verify", fails="1 of 4 files failed")
    assert path.read_bytes() == body({"n": "2"})
    assert {path for _, path in origin.asked[before:]} == {"/file/2?n=2", "/thing/bad"}


def test_the_last_line_is_for_people(
    origin: Origin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = _bad_and_good(origin, tmp_path)
    with pytest.raises(CommandError):
        call_command("download", *urls, "--to", str(tmp_path / "to"), "--allow", "127.0.0.0/8")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Downloaded 3 of 4 files, 2.9 KiB, 1 failed, in ")
    assert last.endswith(f" s, to {tmp_path / 'to'}")


def test_a_file_that_exists_fails_is_skipped_or_is_replaced(
    origin: Origin, download: Download, tmp_path: Path
) -> None:
    url = f"{origin.url}/file/a"
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "a").write_text("mine")
    found = download(url, fails="1 of 1 files failed")
    assert found["errors"][0]["error"] == "a already exists; it was not replaced"
    assert download(url, "--existing", "skip")["state"] == "succeeded"
    assert (tmp_path / "to" / "a").read_text() == "mine"
    assert download(url, "--existing", "replace")["state"] == "succeeded"
    assert (tmp_path / "to" / "a").read_bytes() == body({})


def test_a_file_that_would_be_a_folder_of_another_is_one_failed_file(
    origin: Origin, download: Download, tmp_path: Path
) -> None:
    names = ["a/b", "a", "a/c", "d"]
    lines = [f"{origin.url}/file/{n}?n={n} {name}" for n, name in enumerate(names)]
    (tmp_path / "list").write_text("\n".join(lines))
    for _ in range(2):  # also as the same command tries again what failed
        found = download(str(tmp_path / "list"), fails="1 of 4 files failed")
        assert [it["error"] for it in found["errors"]] == [
            "its name 'a' is a folder of another file"
        ]
        whole = [path for path in (tmp_path / "to").rglob("*") if path.is_file()]
        assert {str(path.relative_to(tmp_path / "to")) for path in whole} == {"a/b", "a/c", "d"}


def test_without_digests_none_is_made(origin: Origin, download: Download) -> None:
    download(f"{origin.url}/file/a", "--no-digest")
    assert DownloadJob.objects.get().files.get().sha256 == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ftp://a/b"], "scheme is 'ftp'"),
        (["nowhere.txt"], "No such file or directory"),
        (["http://a/", "--threads", "0"], "--threads: expected 1 to 200"),
        (["http://a/", "--allow", "everything"], "does not appear to be an IPv4 or IPv6 network"),
        (["s3://a/b", "s3://a/c"], "expected a single s3://bucket/prefix"),
        (["s3://a/b", "--endpoint", "nonsense"], "Invalid endpoint"),
        (["http://a/", "--to", "/dev/null/x"], "/dev/null/x: Not a directory"),
    ],
)
def test_a_job_that_cannot_start_exits_with_2_and_a_reason(args: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        call_command("download", *args)
    assert caught.value.returncode == 2


def test_a_job_that_another_process_runs_is_left_alone(
    origin: Origin, tmp_path: Path, settings: Settings
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_HEARTBEAT_S": 1000.0}
    words = ["download", f"{origin.url}/file/a", "--to", str(tmp_path)]
    with pytest.raises(CommandError):  # refused for its address: the job is there
        call_command(*words)
    job = DownloadJob.objects.get()
    DownloadJob.objects.update(state="running", heartbeat_at=rows.now())
    refused = threading.Event()

    def beat() -> None:
        while not refused.wait(0.2):
            DownloadJob.objects.update(heartbeat_at=rows.now())
        connection.close()  # this thread's

    owner = threading.Thread(target=beat)
    owner.start()
    try:
        with pytest.raises(
            CommandError, match=f"job {job.id} is run by process {job.owner_pid}"
        ) as caught:
            call_command(*words)
    finally:
        refused.set()
        owner.join()
    assert caught.value.returncode == 2


class Site:
    """A project of its own, whose command runs in processes that can be stopped."""

    def __init__(self, data: Path, target: Path) -> None:
        self.data = data
        self.target = target
        self.env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "DATA_DIR": str(data),
            "DEBUG": "1",
            "DOWNLOAD_NETWORKS": "127.0.0.0/8",
        }
        self.manage("migrate", "--verbosity", "0").communicate(timeout=200)

    def manage(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def trail(self) -> list[tuple[str, str, str]]:
        """Return the audit entries: action, actor and origin."""
        with contextlib.closing(sqlite3.connect(self.data / "db.sqlite3")) as database:
            query = (
                "SELECT action, actor_name, via FROM cacheapp_downloads_auditentry ORDER BY at, id"
            )
            return list(database.execute(query))

    def download(self, *words: str) -> subprocess.Popen[str]:
        return self.manage("download", *words, "--to", str(self.target), "--json")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "data", tmp_path / "to")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["ctrl-c", "kill"]
)
def test_the_same_command_resumes_after(
    number: signal.Signals, status: int, site: Site, origin: Origin
) -> None:
    half = 1_500_000
    name = f"big-{number.name}"
    # The first request hangs half-way, as if the network had stopped; the next one is answered.
    origin.things[name] = Thing([Version(WHOLE, '"v1"')], cuts=[half], hang=True)
    words = [f"{origin.url}/file/{n}?n={n}" for n in range(5)] + [f"{origin.url}/thing/{name}"]
    first = site.download(*words)

    def half_there() -> bool:
        sizes = [path.stat().st_size for path in site.target.glob(".*/*.part")]
        whole = list(site.target.glob("[0-9]"))
        return len(whole) == 5 and any(size >= half - 2**18 for size in sizes)

    until(half_there, "five files, and half of the sixth", 200)
    first.send_signal(number)
    _, complaint = first.communicate(timeout=200)
    assert first.returncode == status
    if number is signal.SIGINT:
        assert "stopped by SIGINT; the same command resumes the job" in complaint
    before = len(origin.asked)
    second = site.download(*words)
    out, _ = second.communicate(timeout=200)
    assert second.returncode == 0, out
    found = json.loads(out)
    assert (found["state"], found["files_done"], found["files_failed"]) == ("succeeded", 6, 0)
    assert [path for _, path in origin.asked[before:]] == [f"/thing/{name}"]
    asked = origin.things[name].asked[-1]
    assert int(asked["range"].removeprefix("bytes=").removesuffix("-")) >= half - 2**18
    assert (site.target / name).read_bytes() == WHOLE
    assert sorted(path.name for path in site.target.iterdir()) == [*"01234", name]
    by = terminal_actor().name
    paused = [("pause", by, "command")] if number is signal.SIGINT else []
    began = [("begin", f"worker {run.pid}", "worker") for run in (first, second)]
    create, resume = (("create", by, "command"), ("resume", by, "command"))
    assert site.trail() == [create, began[0], *paused, resume, began[1]]


def test_the_bytes_of_a_file_that_failed_stay_for_the_same_command(
    origin: Origin, download: Download, tmp_path: Path
) -> None:
    thing = origin.things["breaks"] = Thing([Version(WHOLE, '"v"')], cuts=[1000] * 2)
    url = f"{origin.url}/thing/breaks"
    found = download(url, "--tries", "2", "--title", " Nightly ", fails="1 of 1 files failed")
    assert found["errors"][0]["error"] == (
        "ended after 2000 of 3000000 bytes; tried 2 times; 2000 bytes are kept for a retry"
    )
    again = download(url)
    assert (again["state"], again["id"]) == ("succeeded", found["id"])
    assert DownloadJob.objects.get(id=found["id"]).title == "Nightly"  # kept without the option
    assert [fields.get("range") for fields in thing.asked] == [None, "bytes=1000-", "bytes=2000-"]
    assert (tmp_path / "to" / "breaks").read_bytes() == WHOLE
    assert not list((tmp_path / "to").glob(".*"))


def test_limits_are_options(origin: Origin, download: Download) -> None:
    busy = ["503 Service Unavailable\r\nRetry-After: 2"] * 2
    origin.things["busy"] = Thing([Version(b"x", '"v"')], refusals=busy)
    origin.things["hangs"] = Thing([Version(WHOLE, '"v"')], cuts=[99], hang=True)
    for name, options, error in (
        ("busy", ["--max-retry-after", "1"], "responded with 503 Service Unavailable"),
        ("hangs", ["--read-timeout", "0.2", "--tries", "1"], "no data arrived before the timeout"),
    ):
        url = f"{origin.url}/thing/{name}"
        found = download(url, *options, fails="1 of 1 files failed")
        assert found["errors"][0]["error"].partition(";")[0] == error


def test_parts_of_a_large_file_are_an_option(
    origin: Origin, download: Download, tmp_path: Path
) -> None:
    large, gate = body({"bytes": "3000000"}), threading.Event()
    thing = origin.things["large"] = Thing([Version(large, '"v"')], takes_s=0.01, gate=gate)

    def open_gate() -> None:
        until(lambda: thing.active >= 3, "three connections", 60)
        gate.set()

    opener = threading.Thread(target=open_gate, daemon=True)
    opener.start()
    url = f"{origin.url}/thing/large"
    found = download(url, "--parts", "3", "--split-from-bytes", "1048576")
    opener.join(60)
    assert DownloadJob.objects.get(id=found["id"]).parts == 3
    assert (tmp_path / "to" / "large").read_bytes() == large


def test_a_rate_is_an_option(origin: Origin, download: Download) -> None:
    found = download(f"{origin.url}/file/rate.bin?bytes=307200", "--limit-rate", "200k")
    assert found["seconds"] >= 1.3
    assert DownloadJob.objects.get(id=found["id"]).limit_rate == 200 * 1024


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--limit-rate", "9", "is '9'; expected bytes per second, at least 1024"),
        ("--tries", "0", "is '0'; expected a whole number of at least 1"),
        ("--tries", "many", "is 'many'; expected a whole number of at least 1"),
        ("--read-timeout", "nan", "is 'nan'; expected a number of seconds above 0"),
        ("--stall-timeout", "1e9", "is '1e9'; expected a number of seconds above 0, at most 86400"),
    ],
)
def test_a_limit_out_of_range_is_refused(option: str, value: str, expected: str) -> None:
    with pytest.raises(CommandError, match=re.escape(f"{option}: {expected}")):
        call_command("download", "http://files.example/a", option, value)
