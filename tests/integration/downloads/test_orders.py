"""Jobs that the code of a project creates, and what it reads of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs.models import AuditEntry, DownloadJob
from cacheapp.downloads.orders import DownloadsDisabled, create_job, jobs_of
from cacheapp.downloads.runners import coordinator
from cacheapp.downloads.sources.request import RequestRefused
from cacheapp.processes.waiting import until
from tests.origin import Origin

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def origin(settings: Settings, tmp_path: Path) -> Iterator[Origin]:
    coordinator._forget()  # noqa: SLF001 (as a fork does)
    with Origin() as server:
        settings.CACHEAPP = {
            **settings.CACHEAPP,
            "DOWNLOAD_ROOT": tmp_path / "downloads",
            "DOWNLOAD_ORIGINS": [server.url],
            "DOWNLOAD_NETWORKS": ["127.0.0.0/8"],
            "STATE_DIR": tmp_path / "state",
        }
        try:
            yield server
            running = DownloadJob.objects.exclude(state="succeeded")
            until(lambda: not running.exists(), "all jobs to end", 100)  # while the origin is there
        finally:
            coordinator.coordinator().close(60)
            coordinator._forget()  # noqa: SLF001


def test_a_job_of_code_arrives_and_belongs_to_its_user(origin: Origin, tmp_path: Path) -> None:
    ann, bob = User.objects.create_user("ann"), User.objects.create_user("bob")
    job = create_job(urls=[f"{origin.url}/file/a"], title="A file", user=ann)
    until(lambda: jobs_of(ann).get().state == "succeeded", "the job to succeed", 100)
    found = jobs_of(ann).get()
    assert (found.id, found.title, found.files_done, found.files_total) == (job.id, "A file", 1, 1)
    assert (tmp_path / "downloads" / str(job.id) / "a").exists()
    assert not jobs_of(bob).exists()
    created = AuditEntry.objects.get(job=job.id, action="create")
    assert created.actor_name == f"user {ann.pk} (ann)"


def test_a_job_starts_after_the_commit(origin: Origin) -> None:
    with transaction.atomic():
        job = create_job(urls=[f"{origin.url}/file/a"])
        transaction.set_rollback(True)
    assert not DownloadJob.objects.filter(id=job.id).exists()
    assert origin.asked == []


def test_an_order_with_the_same_key_is_the_same_job(origin: Origin) -> None:
    ann, bob = User.objects.create_user("ann"), User.objects.create_user("bob")
    urls = [f"{origin.url}/file/a"]
    first = create_job(urls=urls, user=ann, idempotency_key="nightly")
    assert create_job(urls=urls, user=ann, idempotency_key="nightly").id == first.id
    assert create_job(urls=urls, user=bob, idempotency_key="nightly").id != first.id
    assert create_job(urls=urls, idempotency_key="nightly").id != first.id


def test_a_wrong_order_names_all_its_mistakes(origin: Origin) -> None:
    with pytest.raises(RequestRefused, match="2 invalid values; nothing was started") as error:
        create_job(urls=["https://elsewhere.example.com/a"], threads=0)
    assert {it["field"] for it in error.value.problems} == {"urls[0]", "threads"}
    assert not DownloadJob.objects.exists()


def test_a_user_who_is_not_signed_in_gets_no_job(origin: Origin) -> None:
    with pytest.raises(ValueError, match="expected one that is saved"):
        create_job(urls=[f"{origin.url}/file/a"], user=AnonymousUser())
    with pytest.raises(ValueError, match="expected one that is saved"):
        jobs_of(AnonymousUser())
    assert not DownloadJob.objects.exists()


def test_without_a_directory_there_is_no_job(settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_ROOT": None}
    with pytest.raises(DownloadsDisabled, match="DOWNLOAD_ROOT"):
        create_job(urls=["https://files.example.com/a"])
