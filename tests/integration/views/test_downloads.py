"""Errors of the download endpoints; tests/system has their successes, under Gunicorn."""

import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.downloads import release_downloads
from cacheapp.downloads.jobs import repository, transitions
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.plan import JobProgress
from cacheapp.downloads.runners.coordinator import existing_coordinator
from cacheapp.downloads.sources.request import DownloadRequest

pytestmark = pytest.mark.django_db

URL = "https://files.example.com/a"
UNKNOWN = uuid.UUID(int=4711)


@pytest.fixture(autouse=True)
def _demo(settings: Settings, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    static = tmp_path_factory.mktemp("static")
    settings.ALLOWED_HOSTS = ["localhost"]
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = static  # WhiteNoise warns about a missing directory
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DEMO": True,
        "DOWNLOAD_ROOT": tmp_path,
        "DOWNLOAD_ORIGINS": ["https://files.example.com"],
        "DOWNLOAD_MAX_FILES": 5,
    }


@pytest.fixture
def client() -> Client:
    return Client(HTTP_HOST="localhost:8000", REMOTE_ADDR="127.0.0.1")  # SERVER_PORT is 80


@pytest.fixture
def refused(client: Client, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that posts an invalid body and returns the error."""

    def post(body: Any, status: int = 400) -> dict[str, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = client.post("/api/downloads", data, content_type="application/json")
        assert answer.status_code == status, answer.content
        assert DownloadJob.objects.count() == 0
        assert list(tmp_path.iterdir()) == []
        found: dict[str, Any] = answer.json()
        return found

    return post


def test_all_that_is_wrong_with_an_order_is_said(refused: Callable[..., dict[str, Any]]) -> None:
    found = refused({"urls": [URL, "http://evil.net/x", 7], "threads": 201, "dir": "/etc"})
    assert found["error"] == "4 invalid values; nothing was started"
    assert found["problems_total"] == 4
    assert found["problems"] == [
        {"field": "threads", "error": "is 201; expected a whole number from 1 to 200"},
        {
            "field": "dir",
            "error": "is not a field; expected one of base_url, exclude, include, limit_rate, "
            "manifest, parts, portable_names, s3, threads, title, urls, webhook",
        },
        {
            "field": "urls[1]",
            "url": "http://evil.net/x",
            "error": "origin http://evil.net:80 is not allowed; allowed: "
            "http://127.0.0.1:80, http://localhost:80, https://files.example.com:443",
        },
        {"field": "urls[2]", "url": "7", "error": "is 7; expected a string"},
    ]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{", 400, "the body is not valid JSON"),
        (b"[]", 400, "the body is a JSON list; expected an object"),
        (b" " * (2 * 2**20 + 1), 413, "the body has 2097153 bytes; expected at most 2097152"),
        ({"urls": [f"{URL}{n}" for n in range(6)]}, 400, "1 invalid value; nothing was started"),
    ],
    ids=["no-json", "no-object", "too-large", "too-many"],
)
def test_a_bad_body_is_refused(
    body: Any, status: int, error: str, refused: Callable[..., dict[str, Any]]
) -> None:
    assert refused(body, status)["error"].startswith(error)


def test_the_own_origin_is_the_port_that_this_server_has_not_what_host_says(
    client: Client,
) -> None:
    body = json.dumps({"urls": ["http://localhost:22/"]})
    answer = client.post(
        "/api/downloads", body, content_type="application/json", HTTP_HOST="localhost:22"
    )
    assert answer.status_code == 400
    assert "origin http://localhost:22 is not allowed" in answer.json()["problems"][0]["error"]


def test_the_own_origin_is_nobodys_elsewhere(client: Client, settings: Settings) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    token = {"sha256": digest, "permissions": ["cacheapp_downloads.add_downloadjob"]}
    settings.CACHEAPP = {**settings.CACHEAPP, "API_TOKENS": {"writer": token}}
    answer = client.post(
        "/api/downloads",
        json.dumps({"urls": ["http://localhost:80/api/cache/lmdb/x"]}),
        content_type="application/json",
        headers={"Authorization": "Bearer secret", "X-Forwarded-For": "192.0.2.1"},
    )
    assert answer.status_code == 400
    assert "origin http://localhost:80 is not allowed" in answer.json()["problems"][0]["error"]


def test_without_a_root_downloads_are_off(
    settings: Settings, refused: Callable[..., dict[str, Any]]
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_ROOT": None}
    assert "CACHEAPP['DOWNLOAD_ROOT']" in refused({"urls": [URL]}, status=503)["error"]


@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_with_the_demo_off_nobody_unknown_may(
    method: str, settings: Settings, client: Client
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": False}
    for path in ("/api/downloads", f"/api/downloads/{uuid.uuid4()}"):
        assert getattr(client, method)(path).status_code == 401


@pytest.mark.parametrize("method", ["get", "delete"])
def test_an_unknown_id_is_not_found(method: str, client: Client) -> None:
    answer = getattr(client, method)(f"/api/downloads/{UNKNOWN}")
    assert (answer.status_code, answer.json()["error"]) == (
        *(404, f"no download has the id {UNKNOWN}"),
    )
    assert getattr(client, method)("/api/downloads/17").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("put", "/api/downloads", "GET, POST, HEAD"),
        ("delete", "/api/downloads", "GET, POST, HEAD"),
        ("post", f"/api/downloads/{UNKNOWN}", "GET, DELETE, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    method: str, path: str, allowed: str, client: Client
) -> None:
    answer = getattr(client, method)(path, content_type="application/json")
    assert (answer.status_code, answer["Allow"]) == (405, allowed)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1" * 5000])
def test_a_bad_limit_is_refused(limit: str, client: Client) -> None:
    answer = client.get("/api/downloads", {"limit": limit})
    assert answer.status_code == 400
    assert answer.json()["error"].endswith("expected a whole number from 1 to 100")


def test_the_list_is_cut_at_its_limit(client: Client) -> None:
    owner = JobOwner(uuid.uuid4(), 4711)
    jobs = [repository.create(DownloadRequest((URL,), threads=1), owner) for _ in range(3)]
    listed = client.get("/api/downloads", {"limit": 2}).json()["jobs"]
    assert [job["id"] for job in listed] == [str(job.id) for job in reversed(jobs[1:])]


def test_errors_are_cut_at_a_hundred_and_the_rest_is_counted(client: Client) -> None:
    urls = tuple(f"{URL}{n}" for n in range(103))
    owner = JobOwner(uuid.uuid4(), 4711)
    job = repository.create(DownloadRequest(urls, threads=1), owner)
    transitions.finish(job.id, owner, [], JobProgress(), "it broke")
    found = client.get(f"/api/downloads/{job.id}").json()
    assert (found["files_failed"], len(found["errors"]), found["errors_left_out"]) == (103, 100, 3)


def test_handing_over_without_a_job_does_nothing() -> None:
    assert existing_coordinator() is None
    release_downloads(os.getpid())
    assert existing_coordinator() is None


def test_handing_over_before_django_is_there_does_nothing() -> None:
    program = "import os; from cacheapp.downloads import release_downloads; release_downloads(os.getpid())"
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("", "")
