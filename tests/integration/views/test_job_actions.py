"""API actions on a job that no thread runs: transitions, removal, paging, idempotent creation."""

import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.http import HttpRequest
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from cacheapp.conf import conf
from cacheapp.downloads.jobs import repository
from cacheapp.downloads.jobs.actors import Actor
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.runners import coordinator as hosting
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.views import job_access, job_actions

pytestmark = pytest.mark.django_db

URL = "https://files.example.com/a"
OWNER = JobOwner(uuid.uuid4(), 4711)
SHA256 = "ab" * 32


@pytest.fixture(autouse=True)
def _site(idle_site: None, settings: Settings, tmp_path: Path) -> None:
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DEMO": True,
        "DOWNLOAD_ROOT": tmp_path / "downloads",
        "DOWNLOAD_ORIGINS": ["https://files.example.com"],
        "DOWNLOAD_BUCKETS": ["s3://open/pub/"],
    }


@pytest.fixture
def client() -> Client:
    return Client(HTTP_HOST="localhost:8000", REMOTE_ADDR="127.0.0.1")


Post = Callable[..., Any]


@pytest.fixture
def post(client: Client) -> Post:
    """Return a function that posts JSON and returns the response."""

    def send(path: str, body: Any = None, **headers: str) -> Any:
        data = "" if body is None else json.dumps(body)
        return client.post(path, data, content_type="application/json", headers=headers)

    return send


def job_in(state: str, files: int = 2, **facts: Any) -> DownloadJob:
    """Return a job in a state, with its files in a fitting one."""
    order = DownloadRequest(tuple(f"{URL}{n}" for n in range(files)), threads=1)
    job = repository.create(order, OWNER, **facts)
    of_files = {"paused": "queued", "running": "running"}.get(state, state)
    job.files.update(state=of_files, error="responded with 404" if state == "failed" else "")
    DownloadJob.objects.filter(id=job.id).update(state=state)
    job.refresh_from_db()
    return job


@pytest.mark.parametrize(
    ("move", "state", "status", "asked"),
    [
        ("pause", "queued", 202, "pause_requested"),
        ("pause", "running", 202, "pause_requested"),
        ("pause", "paused", 200, None),
        ("pause", "succeeded", 409, None),
        ("pause", "cancelled", 409, None),
        ("cancel", "queued", 202, "cancel_requested"),
        ("cancel", "running", 202, "cancel_requested"),
        ("cancel", "cancelled", 200, None),
        ("cancel", "failed", 409, None),
        ("resume", "running", 409, None),
        ("resume", "failed", 409, None),
        ("retry", "paused", 409, None),
        ("retry", "running", 409, None),
        ("retry", "succeeded", 409, None),
    ],
)
def test_a_move_is_asked_for_is_so_already_or_conflicts(
    move: str, state: str, status: int, asked: str | None, post: Post
) -> None:
    job = job_in(state)
    found = post(f"/api/downloads/{job.id}/{move}")
    assert (found.status_code, found.json()["state"]) == (status, state)
    job.refresh_from_db()
    assert (job.pause_requested, job.cancel_requested) == (
        asked == "pause_requested",
        asked == "cancel_requested",
    )
    assert job.state == state
    if status == 409:
        assert found["Content-Type"] == "application/problem+json"


def test_a_cancel_that_cannot_shut_out_earlier_runs_leaves_the_job_and_says_why(
    post: Post, tmp_path: Path
) -> None:
    job = job_in("paused")
    directory = tmp_path / "downloads" / str(job.id)
    (directory / f".{job.id.hex[:12]}.{job.token}").mkdir(parents=True)
    in_the_way = directory / f".{job.id.hex[:12]}.{job.token + 1}"
    in_the_way.write_text("a file where the next run's directory is to be")
    found = post(f"/api/downloads/{job.id}/cancel")
    assert (found.status_code, found.json()["state"]) == (409, "paused")
    assert "its directory cannot be written (Not a directory)" in found.json()["detail"]
    job.refresh_from_db()
    assert job.state == "paused"
    in_the_way.unlink()
    assert post(f"/api/downloads/{job.id}/cancel").json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("move", "state"),
    [("pause", "running"), ("cancel", "paused"), ("resume", "paused"), ("retry", "failed")],
)
def test_a_job_that_is_removed_as_it_is_asked_for_something_is_refused(
    move: str, state: str, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(state)
    found = job_access.get_job

    def then_removed(request: HttpRequest, job_id: uuid.UUID) -> DownloadJob:
        read = found(request, job_id)
        DownloadJob.objects.all().delete()  # by another worker
        return read

    monkeypatch.setattr(job_actions, "get_job", then_removed)
    answer = post(f"/api/downloads/{job.id}/{move}")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "the job was removed just now",
    )


def test_a_paused_job_is_cancelled_at_once(post: Post) -> None:
    job = job_in("paused")
    assert post(f"/api/downloads/{job.id}/cancel").json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("move", "state"), [("resume", "paused"), ("retry", "failed"), ("retry", "cancelled")]
)
def test_what_goes_on_is_queued_again_with_what_is_whole(move: str, state: str, post: Post) -> None:
    job = job_in(state, files=4)
    for position in (0, 3):  # of these, the last is not on disk any more
        DownloadFile.objects.filter(job=job, position=position).update(
            state="succeeded", bytes_done=5
        )
    directory = repository.destination_of(job, conf().download_root)
    directory.mkdir(parents=True)
    (directory / job.files.get(position=0).name).write_bytes(b"whole")
    found = post(f"/api/downloads/{job.id}/{move}")
    assert (found.status_code, found.json()["state"]) == (202, "queued")
    assert found.json()["generation"] > job.generation
    assert list(job.files.order_by("position").values_list("state", "error")) == [
        ("succeeded", job.files.get(position=0).error),
        *[("queued", "")] * 3,
    ]
    assert (found.json()["files_done"], found.json()["bytes_done"]) == (1, 5)
    assert DownloadJob.objects.get(id=job.id).owner == hosting.coordinator().owner.token


@pytest.mark.parametrize(("move", "state"), [("resume", "paused"), ("retry", "failed")])
@pytest.mark.parametrize(
    ("query", "expected"),
    [("", "succeeded"), ("?verify=false", "succeeded"), ("?verify=true", "queued")],
)
def test_digests_of_complete_files_are_compared_on_request(
    move: str, state: str, query: str, expected: str, post: Post
) -> None:
    job = job_in(state, files=2)
    good, bad = job.files.order_by("position")
    digest = hashlib.sha256(b"whole").hexdigest()
    job.files.update(state="succeeded", bytes_done=5, sha256=digest)
    directory = repository.destination_of(job, conf().download_root)
    directory.mkdir(parents=True)
    (directory / good.name).write_bytes(b"whole")
    (directory / bad.name).write_bytes(b"spoil")
    assert post(f"/api/downloads/{job.id}/{move}{query}").status_code == 202
    states = job.files.order_by("position").values_list("state", flat=True)
    assert list(states) == ["succeeded", expected]


def test_a_wrong_wish_to_verify_is_refused(post: Post) -> None:
    found = post(f"/api/downloads/{job_in('paused').id}/resume?verify=maybe")
    assert found.status_code == 400
    assert "verify is 'maybe'; expected one of 'true', 'false'" in found.json()["error"]


@pytest.mark.parametrize("move", ["resume", "retry"])
def test_what_was_asked_of_a_released_job_stays_asked(move: str, post: Post) -> None:
    job = job_in("queued")
    DownloadJob.objects.update(
        owner=None, cancel_requested=True, heartbeat_at="2026-01-01T00:00:00Z"
    )
    assert post(f"/api/downloads/{job.id}/{move}").status_code == 200
    job.refresh_from_db()
    assert (job.owner, job.cancel_requested) == (None, True)


@pytest.mark.parametrize(("move", "state"), [("resume", "paused"), ("retry", "failed")])
def test_a_job_from_a_terminal_is_left_to_its_command(move: str, state: str, post: Post) -> None:
    job = job_in(state, fingerprint="x", destination="/data")
    found = post(f"/api/downloads/{job.id}/{move}")
    assert found.status_code == 409
    assert "run the same command to resume it" in found.json()["detail"]


def test_moves_need_their_permissions(client: Client, settings: Settings, post: Post) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": False}
    user = User.objects.create_user("reader")
    user.user_permissions.add(Permission.objects.get(codename="view_downloadjob"))
    client.force_login(user)
    job = job_in("failed", creator=Actor(f"user:{user.pk}", "reader", "api"))
    path = f"/api/downloads/{job.id}"
    assert client.get(path).status_code == 200
    assert client.get(f"{path}/files").status_code == 200
    for move in ("pause", "resume", "cancel", "retry"):
        assert post(f"{path}/{move}").status_code == 403
    assert client.delete(path).status_code == 403
    assert client.delete(f"{path}?files=keep").status_code == 403
    assert post("/api/downloads", {"urls": [URL]}).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="delete_downloadjob"))
    assert client.delete(f"{path}?files=keep").status_code == 200


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "paused"])
@pytest.mark.parametrize("files", ["keep", "delete"])
def test_a_job_is_removed_with_or_without_its_files(
    state: str, files: str, client: Client, tmp_path: Path
) -> None:
    job = job_in(state)
    directory = tmp_path / "downloads" / str(job.id)
    (directory / "folder").mkdir(parents=True)
    (directory / "folder" / "a").write_text("whole")
    run = directory / f".{job.id.hex[:12]}.{job.token}"
    run.mkdir()
    (run / "0.part").write_text("partial")
    found = client.delete(f"/api/downloads/{job.id}?files={files}")
    assert (found.status_code, found.json()["removed"]) == (200, True)
    assert found.json()["files_left"] is (files == "keep")
    assert (DownloadJob.objects.count(), DownloadFile.objects.count()) == (0, 0)
    left = [path.name for path in directory.rglob("*")] if directory.exists() else None
    assert left == (["folder", "a"] if files == "keep" else None)
    assert client.delete(f"/api/downloads/{job.id}?files={files}").status_code == 404


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_somebody_runs_is_not_removed(state: str, client: Client) -> None:
    job = job_in(state)
    found = client.delete(f"/api/downloads/{job.id}?files=delete")
    assert found.status_code == 409
    assert found.json()["error"] == (f"the job is {state}; expected a paused or finished one")
    assert DownloadJob.objects.count() == 1


def test_files_among_others_are_never_removed(client: Client, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    job = job_in("failed", destination=str(tmp_path), fingerprint="x")
    assert client.delete(f"/api/downloads/{job.id}?files=delete").status_code == 409
    assert client.delete(f"/api/downloads/{job.id}?files=keep").status_code == 200
    assert (tmp_path / "mine").read_text() == "mine"


def test_another_word_for_files_is_refused(client: Client) -> None:
    found = client.delete(f"/api/downloads/{job_in('failed').id}?files=all")
    assert (found.status_code, found.json()["error"]) == (
        *(400, "files is 'all'; expected one of 'keep', 'delete'"),
    )


def test_a_key_makes_one_job(post: Post) -> None:
    first = post("/api/downloads", {"urls": [URL], "threads": 2}, **{"Idempotency-Key": "k-1"})
    again = post("/api/downloads", {"threads": 2, "urls": [URL]}, **{"Idempotency-Key": "k-1"})
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again["Location"] == first["Location"]
    other = post("/api/downloads", {"urls": [URL + "x"]}, **{"Idempotency-Key": "k-1"})
    assert other.status_code == 422
    assert first.json()["id"] in other.json()["error"]
    assert post("/api/downloads", {"urls": [URL]}, **{"Idempotency-Key": "k-2"}).status_code == 202
    assert DownloadJob.objects.count() == 2


def test_a_key_is_its_callers_own(post: Post, client: Client, settings: Settings) -> None:
    key = {"Idempotency-Key": "k"}
    jobs = [post("/api/downloads", {"urls": [URL]}, **key).json()["id"]]
    user = User.objects.create_superuser("boss")
    client.force_login(user)
    jobs.append(post("/api/downloads", {"urls": [URL]}, **key).json()["id"])
    assert jobs[0] != jobs[1]
    assert DownloadJob.objects.get(id=jobs[1]).created_by == f"user {user.pk} (boss)"
    assert DownloadJob.objects.get(id=jobs[0]).created_by == "this machine"


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
def test_a_key_that_is_none_is_refused(key: str, post: Post) -> None:
    found = post("/api/downloads", {"urls": [URL]}, **{"Idempotency-Key": key})
    assert found.status_code == 400
    assert "expected 1 to 255 visible ASCII characters" in found.json()["error"]


def test_a_refused_order_leaves_its_key_free(post: Post) -> None:
    key = {"Idempotency-Key": "k"}
    assert post("/api/downloads", {"urls": []}, **key).status_code == 400
    assert post("/api/downloads", {"urls": [URL]}, **key).status_code == 202


def test_a_manifest_gives_names_and_sums(post: Post) -> None:
    body = {"manifest": f"{URL} {SHA256} sub/one.bin\n{URL}2 sub/ONE.bin\n"}
    job_id = post("/api/downloads", body).json()["id"]
    rows = DownloadFile.objects.filter(job=job_id).order_by("position")
    assert list(rows.values_list("url", "name", "expected_checksum")) == [
        (URL, "sub/one.bin", f"sha256:{SHA256}"),
        (URL + "2", "sub/ONE.bin", ""),
    ]


def test_portable_names_are_an_option_and_their_changes_are_listed(
    post: Post, client: Client
) -> None:
    text = f"{URL} sub/one.bin\n{URL}2 sub/ONE.bin\n{URL}3 .zgroup\n"
    job = post("/api/downloads", {"manifest": text, "portable_names": True}).json()
    assert (job["portable_names"], job["files_renamed"]) == (True, 2)
    detail = client.get(f"/api/downloads/{job['id']}").json()
    assert detail["renamed"] == [
        {"url": URL + "2", "name": "sub/ONE-2.bin", "original_name": "sub/ONE.bin"},
        {"url": URL + "3", "name": "_zgroup", "original_name": ".zgroup"},
    ]
    assert detail["renamed_left_out"] == 0


def test_a_checksum_list_is_a_manifest_with_its_base_url(post: Post) -> None:
    body = {"manifest": f"{SHA256}  one.bin\n", "base_url": URL}
    job_id = post("/api/downloads", body).json()["id"]
    file = DownloadFile.objects.get(job=job_id)
    assert (file.url, file.expected_checksum) == (f"{URL}/one.bin", f"sha256:{SHA256}")


def test_a_bucket_is_listed_later(post: Post) -> None:
    found = post("/api/downloads", {"s3": "s3://open/pub/2026/"}).json()
    assert (found["source"], found["files_total"]) == ("s3://open/pub/2026/", 0)
    assert DownloadJob.objects.get().listed_all is False
    refused = post("/api/downloads", {"s3": "s3://open/private/"})
    assert refused.json()["problems"] == [
        {
            "field": "s3",
            "error": "s3://open/private/ is not allowed; allowed: s3://open/pub/",
        }
    ]


def _all_pages(client: Client, path: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    address: str | None = path
    while address is not None:
        page = client.get(address).json()
        found += page[name]
        address = page["next"]
    return found


def test_jobs_come_page_by_page_though_they_are_equally_old(client: Client) -> None:
    jobs = [job_in("failed", files=1) for _ in range(7)]
    DownloadJob.objects.update(created_at=jobs[0].created_at)
    found = _all_pages(client, "/api/downloads?limit=3", "jobs")
    assert sorted(job["id"] for job in found) == sorted(str(job.id) for job in jobs)


def test_jobs_that_come_meanwhile_shift_no_page(client: Client) -> None:
    jobs = [job_in("failed", files=1) for _ in range(4)]
    first = client.get("/api/downloads?limit=2").json()
    job_in("failed", files=1)
    second = client.get(first["next"]).json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == [
        str(job.id) for job in reversed(jobs)
    ]
    assert second["next"] is None


def test_jobs_are_listed_by_state(client: Client) -> None:
    wanted = [job_in("paused"), job_in("paused")]
    job_in("failed")
    found = _all_pages(client, "/api/downloads?state=paused&limit=1", "jobs")
    assert [job["id"] for job in found] == [str(job.id) for job in reversed(wanted)]
    assert client.get("/api/downloads?state=lost").status_code == 400


def test_files_come_page_by_page_in_their_order(client: Client) -> None:
    job = job_in("failed", files=7)
    DownloadFile.objects.filter(job=job, position=3).update(
        state="succeeded", sha256=SHA256, bytes_done=3, expected_size=3, tries=1, error=""
    )
    path = f"/api/downloads/{job.id}/files"
    found = _all_pages(client, f"{path}?limit=3", "files")
    assert [file["position"] for file in found] == list(range(7))
    assert found[3] == {
        "position": 3,
        "url": URL + "3",
        "name": "a3",
        "original_name": None,
        "state": "succeeded",
        "bytes_done": 3,
        "bytes_total": 3,
        "sha256": SHA256,
        "tries": 1,
        "error": "",
        "generation": 1,
    }
    failed = _all_pages(client, f"{path}?limit=2&state=failed", "files")
    assert [file["position"] for file in failed] == [0, 1, 2, 4, 5, 6]


@pytest.mark.parametrize(
    "query",
    [
        "after=x",
        "after=2026-01-01_x",
        "after=",
        f"after=2026-01-01_{uuid.UUID(int=1)}",
        f"after=0001-01-01T00:00:00%2B23:59_{uuid.UUID(int=1)}",
    ],
)
def test_a_place_that_no_page_named_is_refused(query: str, client: Client) -> None:
    found = client.get(f"/api/downloads?{query}")
    assert found.status_code == 400
    assert "expected the value in `next` of a page" in found.json()["error"]


def test_api_and_page_show_the_time_left_that_the_owner_estimates(client: Client) -> None:
    job = job_in("running")
    DownloadJob.objects.update(bytes_done=100, bytes_total=1100)
    cache.set(f"cacheapp.download.{job.id}", {"rate_bps": 250, "eta_s": 7, "moving": []})
    found = client.get(f"/api/downloads/{job.id}").json()
    assert (found["rate_bps"], found["eta_s"], found["bytes_total"]) == (250, 7, 1100)
    page = client.get(reverse("cacheapp:download_page", args=[job.id])).content.decode()
    assert "<dt>Time left (estimate)</dt><dd>7.0 s</dd>" in page
    cache.set(f"cacheapp.download.{job.id}", {"rate_bps": 0, "eta_s": None, "moving": []})
    assert client.get(f"/api/downloads/{job.id}").json()["eta_s"] is None
