"""Dispatch to Celery without a reachable broker; tests/system has real workers."""

import importlib.util
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import celery
import pytest
from django.core.checks import run_checks
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp import tasks
from cacheapp.downloads import start_downloads
from cacheapp.downloads.jobs import repository, transitions
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.runners.celery_task import OTHER_OWNER
from cacheapp.downloads.runners.coordinator import existing_coordinator
from cacheapp.downloads.sources.request import DownloadRequest

pytestmark = pytest.mark.django_db(transaction=True)

URL = "https://files.example.com/a"


@pytest.fixture(autouse=True)
def _site(settings: Settings, tmp_path: Path) -> Iterator[None]:
    settings.ALLOWED_HOSTS = ["localhost"]
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path  # WhiteNoise warns of a directory that is not there
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DEMO": True,
        "DOWNLOAD_ROOT": tmp_path / "downloads",
        "DOWNLOAD_ORIGINS": ["https://files.example.com"],
        "DOWNLOAD_RUNNER": "celery",
    }
    with celery.Celery(broker="redis://127.0.0.1:1/0", set_as_current=True):
        yield


@pytest.fixture
def client() -> Client:
    return Client(HTTP_HOST="localhost:8000", REMOTE_ADDR="127.0.0.1")


def test_without_a_broker_nothing_is_started(client: Client) -> None:
    body = json.dumps({"urls": [URL]})
    key = {"Idempotency-Key": "k"}
    for _ in range(2):  # the key stays free
        answer = client.post("/api/downloads", body, "application/json", headers=key)
        assert answer.status_code == 503
        assert "Celery's broker does not accept the job" in answer.json()["error"]
        assert answer.json()["error"].endswith("nothing was started")
        assert DownloadJob.objects.count() == 0


def test_a_job_whose_task_was_delivered_despite_an_error_stays(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker accepted it without a response; the task adopts it before it is removed."""

    def send(_name: str, args: list[str], **_options: object) -> None:
        job = DownloadJob.objects.get(id=args[0])
        assert transitions.adopt(job, JobOwner(uuid.uuid4(), 1))
        raise OSError("no answer")

    monkeypatch.setattr(celery.current_app, "send_task", send)
    answer = client.post("/api/downloads", json.dumps({"urls": [URL]}), "application/json")
    assert answer.status_code == 202
    assert DownloadJob.objects.get().owner_pid == 1


@pytest.mark.parametrize("looks", [1, 3])
def test_a_task_whose_job_another_process_runs_is_retried(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message may be the only one that is left: the owner's was acknowledged with it."""
    outcomes = iter([OTHER_OWNER] * looks + ["succeeded"])
    monkeypatch.setattr(tasks, "run_job", lambda *_args: next(outcomes))
    tasks.run_download.apply([str(uuid.uuid4())])
    assert list(outcomes) == []


def test_a_resumed_job_waits_for_the_broker_and_the_command_can_be_repeated(client: Client) -> None:
    job = repository.create(DownloadRequest((URL,), threads=1), None)
    DownloadJob.objects.update(state="paused")
    for _ in range(2):
        answer = client.post(f"/api/downloads/{job.id}/resume", content_type="application/json")
        assert answer.status_code == 503
        assert answer.json()["error"].endswith("try again")
    job.refresh_from_db()
    assert (job.state, job.owner) == ("queued", None)


def test_a_job_that_waits_in_a_queue_is_cancelled_at_once(client: Client) -> None:
    job = repository.create(DownloadRequest((URL,), threads=1), None)
    answer = client.post(f"/api/downloads/{job.id}/cancel", content_type="application/json")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert job.files.get().state == "cancelled"
    assert existing_coordinator() is None


def test_web_workers_run_no_job() -> None:
    start_downloads()
    assert existing_coordinator() is None


def test_e006_a_celery_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [found for found in run_checks() if found.id == "cacheapp.E006"]
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "celery" else real(name)
    )
    (found,) = [found for found in run_checks() if found.id == "cacheapp.E006"]
    assert found.hint == "Run: pip install 'cacheapp[celery]'"
