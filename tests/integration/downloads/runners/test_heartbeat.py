"""Heartbeats come while the coordinator works, and end when it hangs."""

import datetime as dt
from collections.abc import Iterator

import pytest
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import ownership, repository
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners import heartbeat
from cacheapp.downloads.runners.heartbeat import Heartbeat
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.processes.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

ME, OTHER = ownership.new_owner(), ownership.new_owner()


@pytest.fixture(autouse=True)
def _often(settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_HEARTBEAT_S": 1.0}


@pytest.fixture
def beating() -> Iterator[Heartbeat]:
    found = Heartbeat(ME)
    yield found
    found.stop(60)


def _moment(job: DownloadJob) -> dt.datetime:
    job.refresh_from_db()
    return job.heartbeat_at


def test_only_the_jobs_of_the_owner_get_heartbeats(beating: Heartbeat) -> None:
    mine, others = (
        repository.create(DownloadRequest((f"https://a/{n}",), threads=1), owner)
        for n, owner in enumerate([ME, OTHER])
    )
    first, generation = mine.heartbeat_at, mine.generation
    beating.note_round()
    until(lambda: _moment(mine) != first, "a heartbeat")
    assert _moment(others) == others.created_at
    assert mine.generation == generation


def test_a_coordinator_that_hangs_sends_no_more_heartbeats(
    beating: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_STUCK", 2)
    job = repository.create(DownloadRequest(("https://a/1",), threads=1), ME)
    first = job.heartbeat_at

    def has_begun() -> bool:
        beating.note_round()  # none after the first heartbeat
        return _moment(job) != first

    until(has_begun, "a heartbeat")

    def is_silent() -> bool:
        job.refresh_from_db()
        return ownership.is_orphan(job)

    until(is_silent, "the job to be without heartbeats")


def test_nothing_is_written_for_an_owner_without_jobs() -> None:
    assert ownership.send_heartbeat(ME) is False
