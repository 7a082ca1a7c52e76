"""Notifications of a job's end reach a real receiver and the signal's receivers, at least once."""

import base64
import datetime as dt
import hashlib
import hmac
import json
import logging
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import deletion, notifications, repository, retention, transitions
from cacheapp.downloads.jobs.models import DownloadJob, DownloadNotification
from cacheapp.downloads.jobs.ownership import new_owner
from cacheapp.downloads.jobs.rows import now
from cacheapp.downloads.plan import JobProgress
from cacheapp.downloads.runners import notifier
from cacheapp.downloads.runners.coordinator import Coordinator
from cacheapp.downloads.signals import download_ended
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.processes.waiting import until
from tests.origin import Origin
from tests.webhook_receiver import WebhookReceiver

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "a key of the tests"
Settle = dict[str, Any]


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as server:
        yield server


@pytest.fixture(autouse=True)
def _site(settings: Settings, tmp_path: Path, origin: Origin, receiver: WebhookReceiver) -> None:
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DEMO": True,
        "DOWNLOAD_ROOT": tmp_path / "downloads",
        "DOWNLOAD_ORIGINS": [origin.url],
        "DOWNLOAD_WEBHOOKS": {f"{receiver.url}/jobs/": KEY},
        "DOWNLOAD_WEBHOOK_S": 30,
        "STATE_DIR": tmp_path / "state",
    }
    settings.ALLOWED_HOSTS = ["localhost"]
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    found = Coordinator()
    yield found
    found.close(60)


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    """What the signal's receiver got."""
    found: list[dict[str, Any]] = []

    def on_end(**facts: Any) -> None:
        found.append(facts)

    download_ended.connect(on_end)
    yield found
    download_ended.disconnect(on_end)


def _ended(url: str) -> DownloadNotification:
    """Return the notification of a job that a process has ended and not notified."""
    owner = new_owner()
    request = DownloadRequest(("https://a/1",), threads=1, webhook=url)
    job = repository.create(request, owner)
    repository.start(job, owner, Path("/nowhere"))
    assert transitions.finish(job.id, owner, [], JobProgress(), "it broke") == "failed"
    return DownloadNotification.objects.exclude(url="").get()


def _make_due() -> None:
    """Move the clock to the next attempt."""
    DownloadNotification.objects.update(due_at=now())


def test_a_job_that_ends_notifies_its_webhook_with_a_valid_signature(
    coordinator: Coordinator, origin: Origin, receiver: WebhookReceiver
) -> None:
    url = f"{receiver.url}/jobs/1?a=b"
    request = DownloadRequest((f"{origin.url}/file/a",), threads=1, webhook=url)
    job = repository.create(request, coordinator.owner)
    coordinator.wake()
    until(lambda: receiver.received, "the notification", 60)
    (found,) = receiver.received
    assert found.path == "/jobs/1?a=b"
    assert found.headers["content-type"] == "application/json"
    event_id, sent_at = found.headers["webhook-id"], found.headers["webhook-timestamp"]
    signed = hmac.new(KEY.encode(), f"{event_id}.{sent_at}.".encode() + found.body, hashlib.sha256)
    expected = base64.b64encode(signed.digest()).decode()
    assert found.headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(sent_at) - now().timestamp()) < 120
    event = json.loads(found.body)
    assert event["type"] == "download.ended"
    assert event["data"]["id"] == str(job.id)
    assert (event["data"]["state"], event["data"]["files_done"]) == ("succeeded", 1)
    until(lambda: DownloadNotification.objects.get().state == "delivered", "its record", 60)
    assert str(DownloadNotification.objects.get().id) == event_id


def test_a_receiver_that_fails_twice_gets_the_same_event_a_third_time(
    coordinator: Coordinator, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.script = ["500", "500"]
    pending = _ended(f"{receiver.url}/jobs/1?token=secret")
    for tries, error in [(1, "responded with 500"), (2, "responded with 500")]:
        before = now()
        notifier.deliver()
        pending.refresh_from_db()
        assert (pending.state, pending.tries, pending.error) == ("pending", tries, error)
        assert pending.due_at >= before + dt.timedelta(seconds=tries)
        later = pending.due_at + dt.timedelta(hours=1)  # however slow this machine is
        DownloadNotification.objects.update(due_at=later)
        notifier.deliver()  # not due yet
        assert len(receiver.received) == tries
        _make_due()
    coordinator.wake()
    until(lambda: DownloadNotification.objects.get().state == "delivered", "the third", 60)
    pending.refresh_from_db()
    assert (pending.tries, pending.error) == (3, "")
    assert {it.headers["webhook-id"] for it in receiver.received} == {str(pending.id)}
    assert len({it.body for it in receiver.received}) == 1
    assert "secret" not in caplog.text
    assert KEY not in caplog.text


def test_a_redirect_is_not_followed(receiver: WebhookReceiver) -> None:
    receiver.script = ["redirect"]
    pending = _ended(f"{receiver.url}/jobs/1")
    notifier.deliver()
    pending.refresh_from_db()
    assert pending.error == "responded with 302; redirects are not followed"
    assert [it.path for it in receiver.received] == ["/jobs/1"]


def test_attempts_are_bounded(receiver: WebhookReceiver, settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_WEBHOOK_TRIES": 2}
    receiver.script = ["500", "503"]
    pending = _ended(f"{receiver.url}/jobs/1")
    for _ in range(4):
        notifier.deliver()
        _make_due()
    pending.refresh_from_db()
    assert (pending.state, pending.error) == ("failed", "responded with 503")
    assert len(receiver.received) == 2


def test_a_receiver_that_hangs_is_given_up_in_time(
    receiver: WebhookReceiver, settings: Settings
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_WEBHOOK_S": 0.5}
    receiver.script = ["hang"]
    pending = _ended(f"{receiver.url}/jobs/1")
    notifier.deliver()
    pending.refresh_from_db()
    assert (pending.state, pending.tries) == ("pending", 1)
    assert pending.error


def test_what_a_killed_process_had_claimed_becomes_due_again(receiver: WebhookReceiver) -> None:
    pending = _ended(f"{receiver.url}/jobs/1")
    assert notifications.claim_due(now(), 60.0) is not None  # and dies
    notifier.deliver()
    assert receiver.received == []  # it may still be at work
    _make_due()
    notifier.deliver()
    pending.refresh_from_db()
    assert (pending.state, pending.tries) == ("delivered", 2)


def test_a_late_process_does_not_undo_the_record_of_another(receiver: WebhookReceiver) -> None:
    _ended(f"{receiver.url}/jobs/1")
    late = notifications.claim_due(now(), 0.0)
    assert late is not None
    notifier.deliver()
    notifications.record_failure(late, "too late", now())
    assert DownloadNotification.objects.get().state == "delivered"


def test_a_webhook_that_is_not_allowed_any_more_gets_nothing(
    receiver: WebhookReceiver, settings: Settings
) -> None:
    pending = _ended(f"{receiver.url}/jobs/1")
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_WEBHOOKS": {"https://a.example": KEY}}
    notifier.deliver()
    pending.refresh_from_db()
    assert pending.state == "failed"
    assert "is not an allowed webhook" in pending.error
    assert receiver.received == []


def test_a_host_name_with_a_private_address_is_not_contacted(
    receiver: WebhookReceiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = ("127.0.0.1", receiver.port)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    url = f"http://hooks.example:{receiver.port}/"
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_WEBHOOKS": {url: KEY}}
    pending = _ended(url)
    notifier.deliver()
    pending.refresh_from_db()
    assert pending.state == "failed"
    assert "address 127.0.0.1 is loopback; see DOWNLOAD_NETWORKS" in pending.error
    assert receiver.received == []
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_NETWORKS": ["127.0.0.0/8"]}
    DownloadNotification.objects.update(state="pending", due_at=now())
    notifier.deliver()
    pending.refresh_from_db()
    assert (pending.state, len(receiver.received)) == ("delivered", 1)


def test_a_missing_key_is_waited_for_and_not_named_to_readers(
    receiver: WebhookReceiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DOWNLOAD_WEBHOOKS": {receiver.url: {"env": "HOOK_KEY_OF_TESTS"}},
    }
    pending = _ended(f"{receiver.url}/x")
    notifier.deliver()
    pending.refresh_from_db()
    assert (pending.state, pending.error) == ("pending", "its key cannot be read")
    assert receiver.received == []
    monkeypatch.setenv("HOOK_KEY_OF_TESTS", "now it is there")
    _make_due()
    notifier.deliver()
    assert len(receiver.received) == 1


def test_a_removed_job_is_notified_all_the_same(receiver: WebhookReceiver) -> None:
    pending = _ended(f"{receiver.url}/jobs/1")
    job = DownloadJob.objects.get()
    assert deletion.delete_record(DownloadJob.objects.filter(id=job.id))
    retention.prune(-60.0)  # not what is pending
    notifier.deliver()
    pending.refresh_from_db()
    assert (pending.state, pending.job) == ("delivered", None)
    retention.prune(-60.0)
    assert not DownloadNotification.objects.exists()


def test_the_signal_is_sent_once_with_the_facts_of_the_end(
    coordinator: Coordinator, origin: Origin, heard: list[dict[str, Any]]
) -> None:
    request = DownloadRequest((f"{origin.url}/file/a",), threads=1)
    job = repository.create(request, coordinator.owner)
    coordinator.wake()
    until(lambda: heard, "the signal", 60)
    (facts,) = heard
    assert facts["sender"] is DownloadJob
    assert (facts["job_id"], facts["state"]) == (job.id, "succeeded")
    assert isinstance(facts["event_id"], uuid.UUID)
    assert facts["data"]["bytes_done"] == 1000
    until(lambda: DownloadNotification.objects.get().state == "delivered", "its record", 60)


def test_a_receiver_of_the_signal_that_raises_stops_nothing(
    heard: list[dict[str, Any]], receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_: Any) -> None:
        raise LookupError("a bug of the project")

    download_ended.connect(broken)
    try:
        _ended(f"{receiver.url}/jobs/1")
        with caplog.at_level(logging.ERROR, "django.dispatch"):
            notifier.deliver()
    finally:
        download_ended.disconnect(broken)
    assert len(heard) == len(receiver.received) == 1
    assert set(DownloadNotification.objects.values_list("state", flat=True)) == {"delivered"}
    assert "a bug of the project" in caplog.text


def test_each_end_of_a_job_that_is_retried_is_an_event_of_its_own(
    receiver: WebhookReceiver,
) -> None:
    first = _ended(f"{receiver.url}/jobs/1")
    notifier.deliver()
    job, owner = DownloadJob.objects.get(), new_owner()
    assert transitions.requeue(job, owner)
    repository.start(job, owner, Path("/nowhere"))
    transitions.finish(job.id, owner, [], JobProgress(), "it broke again")
    notifier.deliver()
    ids = [it.headers["webhook-id"] for it in receiver.received]
    assert ids[0] == str(first.id) != ids[1]


def test_nothing_is_recorded_for_jobs_that_nothing_is_to_be_told_of(origin: Origin) -> None:
    owner = new_owner()
    job = repository.create(DownloadRequest(("https://a/1",), threads=1), owner)
    repository.start(job, owner, Path("/nowhere"))
    transitions.finish(job.id, owner, [], JobProgress(), "it broke")
    assert not DownloadNotification.objects.exists()


# Over HTTP, on the page, and in a terminal.


def _client() -> Client:
    return Client(HTTP_HOST="localhost:8000", REMOTE_ADDR="127.0.0.1")


def test_a_job_with_a_webhook_that_is_not_allowed_is_refused(origin: Origin) -> None:
    for url in ["https://evil.example/x", "not a URL"]:
        body = {"urls": [f"{origin.url}/file/a"], "webhook": url}
        answer = _client().post("/api/downloads", body, content_type="application/json")
        assert answer.status_code == 400
        (problem,) = answer.json()["problems"]
        assert problem["field"] == "webhook"
    assert not DownloadJob.objects.exists()


def test_the_api_and_the_page_show_how_far_a_notification_is(
    origin: Origin, receiver: WebhookReceiver
) -> None:
    receiver.script = ["500"]
    pending = _ended(f"{receiver.url}/jobs/1?token=secret")
    path = f"/api/downloads/{pending.job_id}"
    notifier.deliver()
    shown = _client().get(path).json()["webhook"]
    assert shown["url"] == f"{receiver.url}/jobs/1?..."
    assert (shown["state"], shown["tries"]) == ("pending", 1)
    assert shown["error"] == "responded with 500"
    assert shown["event_id"] == str(pending.id)
    assert shown["next_try_at"]
    page = _client().get(f"/downloads/{pending.job_id}/").content.decode()
    assert "pending after 1 attempt (responded with 500)" in page
    assert "secret" not in page
    _make_due()
    notifier.deliver()
    shown = _client().get(path).json()["webhook"]
    assert (shown["state"], shown["error"], shown["next_try_at"]) == ("delivered", "", None)
    assert shown["delivered_at"]


def test_a_terminal_notifies_before_it_ends(
    origin: Origin, receiver: WebhookReceiver, tmp_path: Path, heard: list[dict[str, Any]]
) -> None:
    options = ["--to", str(tmp_path / "to"), "--allow", "127.0.0.0/8", "--json"]
    call_command(
        "download", f"{origin.url}/file/a", *options, "--webhook", f"{receiver.url}/jobs/2"
    )
    assert [it.path for it in receiver.received] == ["/jobs/2"]
    assert [it["state"] for it in heard] == ["succeeded"]
    with pytest.raises(CommandError, match="is not an allowed webhook"):
        call_command("download", f"{origin.url}/file/a", *options, "--webhook", "https://b.example")
