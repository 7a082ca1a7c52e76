"""Every action on a job leaves an entry of who did it; a user's waiting jobs and files are limited."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.conf import read
from cacheapp.downloads.jobs import audit, repository, retention
from cacheapp.downloads.jobs.actors import CODE, Actor, terminal_actor
from cacheapp.downloads.jobs.models import AuditEntry, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.runners import commands
from cacheapp.downloads.sources.request import DownloadRequest
from tests.integration.views.users import session, staff

pytestmark = pytest.mark.django_db

URL = "https://files.example.com/a"


@pytest.fixture(autouse=True)
def _site(idle_site: None, settings: Settings, tmp_path: Path) -> None:
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DOWNLOAD_ROOT": tmp_path / "downloads",
        "DOWNLOAD_ORIGINS": ["https://files.example.com"],
        "DOWNLOAD_BUCKETS": ["s3://open/pub/"],
        "DOWNLOAD_MAX_FILES": 100,
        "DOWNLOAD_MAX_USER_JOBS": 3,
        "DOWNLOAD_MAX_USER_FILES": 200,
    }


def _user(name: str, *more: str) -> User:
    verbs = [f"{verb}_downloadjob" for verb in ("view", "add", "change", "delete")]
    return staff(name, *verbs, "view_auditentry", *more)


@pytest.fixture
def ann() -> User:
    return _user("ann")


@pytest.fixture
def mia() -> User:
    return _user("mia", "manage_all_downloads")


def _order(client: Client, body: dict[str, Any], **headers: str) -> Any:
    text = json.dumps(body)
    return client.post("/api/downloads", text, content_type="application/json", headers=headers)


def _urls(count: int) -> dict[str, Any]:
    return {"urls": [f"{URL}{n}" for n in range(count)]}


def _trail(job_id: Any) -> list[tuple[str, str, str]]:
    entries = AuditEntry.objects.filter(job=job_id).order_by("at", "id")
    return [(it.action, it.actor_name, it.via) for it in entries]


def test_actions_over_the_api_a_page_and_the_admin_are_recorded(ann: User, mia: User) -> None:
    user, manager = session(ann), session(mia)
    job_id = _order(user, _urls(2)).json()["id"]
    for _ in range(2):  # the second one changes nothing
        user.post(f"/api/downloads/{job_id}/pause")
    DownloadJob.objects.filter(id=job_id).update(state="paused", pause_requested=False)
    user.post(f"/downloads/{job_id}/action", {"do": "resume"})
    DownloadJob.objects.filter(id=job_id).update(state="paused")
    chosen = {"action": "cancel", "_selected_action": [job_id]}
    manager.post("/admin/cacheapp_downloads/downloadjob/", chosen)
    user.post(f"/api/downloads/{job_id}/retry")
    DownloadJob.objects.filter(id=job_id).update(state="failed")
    manager.delete(f"/api/downloads/{job_id}?files=keep")
    by_ann, by_mia = f"user {ann.pk} (ann)", f"user {mia.pk} (mia)"
    assert not DownloadJob.objects.exists()
    assert _trail(job_id) == [
        ("create", by_ann, "api"),
        ("pause", by_ann, "api"),
        ("resume", by_ann, "page"),
        ("cancel", by_mia, "admin"),
        ("retry", by_ann, "api"),
        ("delete", by_mia, "api"),
    ]
    entry = AuditEntry.objects.get(job=job_id, action="delete")
    assert (entry.detail, entry.job_creator) == ("files kept", f"user:{ann.pk}")


def test_what_was_refused_leaves_no_entry(ann: User) -> None:
    job = repository.create(DownloadRequest((URL,), threads=1), None, Actor("user:0", "x", "api"))
    client = session(ann)
    for action in ("pause", "cancel", "resume", "retry"):
        assert client.post(f"/api/downloads/{job.id}/{action}").status_code == 404
    assert [action for action, *_ in _trail(job.id)] == ["create"]


def test_actions_of_code_the_command_line_and_retention_are_recorded() -> None:
    jobs = [repository.create(DownloadRequest((URL,), threads=1), None) for _ in range(2)]
    for job in jobs:
        commands.pause(job)
    DownloadJob.objects.update(state="failed", finished_at=jobs[0].created_at)
    retention.prune(-60.0)
    left = repository.create(DownloadRequest((URL,), threads=1), None)
    DownloadJob.objects.update(state="failed", finished_at=left.created_at)
    call_command("downloads", prune=True, older_than=0.0)
    assert _trail(jobs[0].id) == [
        ("create", CODE.name, "code"),
        ("pause", CODE.name, "code"),
        ("delete", "retention", "code"),
    ]
    assert _trail(left.id)[1:] == [("delete", terminal_actor().name, "command")]


def test_the_page_of_a_job_shows_its_trail(ann: User, mia: User) -> None:
    job_id = _order(session(ann), _urls(1)).json()["id"]
    session(mia).post(f"/api/downloads/{job_id}/pause")
    page = session(ann).get(f"/downloads/{job_id}/").content.decode()
    paused, created = f"by user {mia.pk} (mia)", f"by user {ann.pk} (ann)"
    assert page.index(created, page.index("History")) < page.index(paused)


def test_the_admin_shows_the_trail_and_changes_nothing(ann: User, mia: User) -> None:
    job_id = _order(session(ann), _urls(1)).json()["id"]
    entry = AuditEntry.objects.get()
    root = "/admin/cacheapp_downloads/auditentry/"
    for user, is_shown in ((ann, True), (mia, True), (_user("ben"), False)):
        client = session(user)
        assert (job_id in client.get(root).content.decode()) is is_shown
        shown = client.get(f"{root}{entry.pk}/change/")
        assert shown.status_code == (200 if is_shown else 302)
    boss = session(User.objects.create_superuser("boss"))
    assert boss.get(f"{root}add/").status_code == 403
    assert boss.post(f"{root}{entry.pk}/change/", {"action": "none"}).status_code == 403
    assert boss.post(f"{root}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    boss.post(root, {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"})
    assert [action for action, *_ in _trail(job_id)] == ["create"]


def test_entries_are_only_added_and_pruned(settings: Settings) -> None:
    job = repository.create(DownloadRequest((URL,), threads=1), None)
    entry = AuditEntry.objects.get()
    entry.action = "none"
    with pytest.raises(TypeError, match="audit entries never change"):
        entry.save()
    with pytest.raises(TypeError, match="audit entries never change"):
        AuditEntry.objects.all().update(action="none")
    for delete in (entry.delete, AuditEntry.objects.all().delete):
        with pytest.raises(TypeError, match="removed by `prune` only"):
            delete()
    job_id = job.id
    job.delete()
    assert audit.prune() == 0
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_AUDIT_RETENTION_S": None}
    assert audit.prune() == 0
    assert _trail(job_id) == [("create", CODE.name, "code")]
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_AUDIT_RETENTION_S": 1e-6}
    assert audit.prune() == 1
    assert _trail(job_id) == []


def test_a_job_too_many_is_refused_until_one_has_ended(ann: User) -> None:
    client = session(ann)
    jobs = [_order(client, _urls(1)).json()["id"] for _ in range(3)]
    refused = _order(client, _urls(1))
    assert refused.status_code == 429
    assert refused["Content-Type"] == "application/problem+json"
    found = refused.json()
    figures = [found[name] for name in ("quota", "waiting", "ordered", "allowed")]
    assert figures == ["jobs", 3, 1, 3]
    assert found["detail"] == (
        "3 jobs wait for this user and 1 were ordered; expected at most 3 together; wait for them, "
        "or cancel some"
    )
    assert DownloadJob.objects.count() == 3
    DownloadJob.objects.filter(id=jobs[0]).update(state="paused")  # paused ones count too
    assert _order(client, _urls(1)).status_code == 429
    form = client.post("/downloads/", {"urls": URL, "threads": "1"})
    assert form.status_code == 429
    assert "3 jobs wait for this user" in form.content.decode()
    assert client.post(f"/api/downloads/{jobs[0]}/cancel").json()["state"] == "cancelled"
    assert _order(client, _urls(1)).status_code == 202
    assert client.post(f"/api/downloads/{jobs[0]}/retry").status_code == 429
    assert DownloadJob.objects.get(id=jobs[0]).state == "cancelled"
    page = client.post(f"/downloads/{jobs[0]}/action", {"do": "retry"})
    assert page.status_code == 429
    assert "expected at most 3 together" in page.content.decode()


def test_files_too_many_are_refused_and_a_prefix_counts_with_all_it_may_have(ann: User) -> None:
    client = session(ann)
    assert _order(client, _urls(60)).status_code == 202
    assert _order(client, {"s3": "s3://open/pub/"}).status_code == 202
    found = _order(client, _urls(41)).json()
    figures = [found[name] for name in ("quota", "waiting", "ordered", "allowed")]
    assert figures == ["files", 160, 41, 200]
    assert _order(client, _urls(40)).status_code == 202
    DownloadJob.objects.filter(files_total=60).update(files_done=50)
    assert _order(client, _urls(1)).json()["quota"] == "jobs"


def test_the_quota_of_a_user_is_no_other_ones(ann: User, mia: User) -> None:
    for _ in range(3):
        assert _order(session(ann), _urls(1)).status_code == 202
    assert _order(session(mia), _urls(1)).status_code == 202
    for _ in range(5):
        repository.create(DownloadRequest((URL,), threads=1), JobOwner(uuid.uuid4(), 1))


def test_an_order_that_is_sent_again_is_no_further_one(ann: User) -> None:
    client, key = session(ann), {"Idempotency-Key": "k"}
    first = _order(client, _urls(1), **key)
    for _ in range(2):
        assert _order(client, _urls(1)).status_code == 202
    again = _order(client, _urls(1), **key)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DOWNLOAD_MAX_USER_JOBS", 0),
        ("DOWNLOAD_MAX_USER_FILES", "many"),
        ("DOWNLOAD_AUDIT_RETENTION_S", 0),
    ],
)
def test_a_wrong_limit_is_a_mistake(name: str, value: Any) -> None:
    (mistake,) = read({name: value})[1]
    assert mistake.startswith(f"CACHEAPP[{name!r}] is {value!r}; expected ")
