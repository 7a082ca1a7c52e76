"""Dispatch to Celery without a reachable broker; tests/system has real workers."""

import importlib.util
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import django
import pytest
from django.core.checks import run_checks
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.downloads import start_downloads, tasks
from cacheapp.downloads.checks import check_tasks
from cacheapp.downloads.jobs import repository, transitions
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.runners import dispatch
from cacheapp.downloads.runners.celery_task import OTHER_OWNER
from cacheapp.downloads.runners.coordinator import existing_coordinator
from cacheapp.downloads.runners.dispatch import BrokerUnavailable
from cacheapp.downloads.runners.task_supervisor import TaskSupervisor
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.processes.waiting import pause, until

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


@pytest.fixture
def without_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "celery" else real(name)
    )


def test_a_job_is_refused_with_the_name_of_the_extra(client: Client, without_celery: None) -> None:
    answer = client.post("/api/downloads", {"urls": [URL]}, content_type="application/json")
    assert answer.status_code == 503
    assert answer.json()["error"] == (
        "DOWNLOAD_RUNNER = 'celery' requires the package celery, which is not installed. "
        "Run: pip install 'cacheapp[celery]'; nothing was started"
    )
    assert DownloadJob.objects.count() == 0


def test_no_e006_if_celery_is_installed() -> None:
    assert not [found for found in run_checks() if found.id == "cacheapp.E006"]


def test_e006_a_celery_that_is_not_installed(without_celery: None) -> None:
    (found,) = [found for found in run_checks() if found.id == "cacheapp.E006"]
    assert found.hint == "Run: pip install 'cacheapp[celery]'"


def _with_tasks(settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_RUNNER": "tasks"}


def _without_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "django.tasks" else real(name)
    )


def test_e008_tasks_need_django_6(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [found for found in run_checks() if found.id == "cacheapp.E008"]
    _with_tasks(settings)
    _without_tasks(monkeypatch)
    (found,) = [found for found in run_checks() if found.id == "cacheapp.E008"]
    assert f"requires Django 6; found {django.get_version()}" in found.msg


def test_e008_tasks_need_a_backend_with_a_queue(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_tasks(settings)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    for path in ("", "django.tasks.backends.immediate.ImmediateBackend"):
        settings.TASKS = {"default": {"BACKEND": path}}
        (found,) = [found for found in check_tasks() if found.id == "cacheapp.E008"]
        assert f"TASKS['default'] is {path or 'not set'}: no worker would run" in str(found.msg)
    settings.TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
    assert check_tasks() == []


def test_without_django_6_a_job_for_tasks_is_refused(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_tasks(settings)
    _without_tasks(monkeypatch)
    answer = client.post("/api/downloads", json.dumps({"urls": [URL]}), "application/json")
    assert answer.status_code == 503
    assert answer.json()["error"] == (
        "DOWNLOAD_RUNNER = 'tasks' requires Django 6; nothing was started"
    )
    assert not DownloadJob.objects.exists()


def test_a_job_whose_task_was_lost_is_submitted_again_by_one_supervisor(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DOWNLOAD_RUNNER": "tasks",
        "DOWNLOAD_HEARTBEAT_S": 0.001,
    }
    queued: list[uuid.UUID] = []
    refused = [BrokerUnavailable("no queue")]

    def submit(job_id: uuid.UUID) -> None:
        if refused:
            raise refused.pop()
        queued.append(job_id)

    monkeypatch.setattr(dispatch, "submit", submit)
    waits = repository.create(DownloadRequest((URL,), threads=1), None)
    lost = repository.create(DownloadRequest((URL,), threads=1), JobOwner(uuid.uuid4(), 1))
    repository.start(lost, JobOwner(lost.owner or uuid.uuid4(), 1), Path("/nowhere"))
    supervisors = [TaskSupervisor(), TaskSupervisor()]

    def look(found: list[Any]) -> list[Any]:
        for supervisor in supervisors:
            supervisor.look()
        return found

    supervisors[0].look()  # sees the heartbeat
    pause(0.01)
    supervisors[0].look()
    assert not refused
    lost.refresh_from_db()
    assert (lost.state, lost.owner_pid, queued) == ("running", 1, [])  # nothing has changed
    until(lambda: look(queued), "the new task")
    look(queued)
    assert queued == [lost.id]
    lost.refresh_from_db()
    waits.refresh_from_db()
    assert (lost.state, lost.owner, waits.owner) == ("queued", None, None)
