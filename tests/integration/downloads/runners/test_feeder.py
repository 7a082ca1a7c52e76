"""How files reach a run while the database goes away: none is missed, and none comes twice."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from django.db.models import QuerySet

from cacheapp.downloads.engine.run import JobRun
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.jobs import listing_rows, repository
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.plan import Item
from cacheapp.downloads.runners import feeder, run_control
from cacheapp.downloads.runners.feeder import Feeder
from cacheapp.downloads.sources.base import ListingTooLong, SourceEntry, UrlList

pytestmark = pytest.mark.django_db(transaction=True)

ME = JobOwner(uuid.uuid4(), 1111)


def _source(files: int) -> UrlList:
    """Return files that all want the same name."""
    return UrlList([f"https://files.example.com/{number}/same" for number in range(files)])


@pytest.fixture
def job(tmp_path: Path) -> DownloadJob:
    return listing_rows.create_job("urls", "f" * 64, tmp_path / "to", 2, ME)


@pytest.fixture
def run(job: DownloadJob) -> Iterator[JobRun]:
    plan = repository.start(job, ME, None, stream=True)
    assert plan is not None
    found = JobRun(plan, TransferLimits(max_bytes=2**20), lambda: None, ThreadPool(2))
    yield found
    found.stop("the test is over")
    found.join(30)
    found.clean()


@pytest.fixture(autouse=True)
def _small_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "BATCH_FILES", 2)
    monkeypatch.setattr(feeder, "_LOCKED_S", 0.01)


def _losing(ask: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same, of which every other answer is lost after it was done."""
    lost = itertools.cycle([OperationalError("it went away"), None, InterfaceError("gone"), None])

    def losing(*args: Any, **kwargs: Any) -> Any:
        answer = ask(*args, **kwargs)
        if (error := next(lost)) is not None:
            raise error
        return answer

    return losing


@pytest.mark.parametrize(
    ("place", "name", "files"),
    [
        (listing_rows, "add_files", 5),
        (listing_rows, "mark_listed_all", 5),
        (repository, "unfinished_items", 5),
        (QuerySet, "exists", 1),  # once at the end; for several files also for their names
    ],
)
def test_a_query_is_repeated_while_the_database_is_away(
    place: Any,
    name: str,
    files: int,
    job: DownloadJob,
    run: JobRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed: list[Item] = []
    monkeypatch.setattr(run, "feed", fed.extend)
    monkeypatch.setattr(place, name, _losing(getattr(place, name)))
    feeder = Feeder(job, ME, run, _source(files))
    feeder.start()
    feeder.join(30)
    monkeypatch.undo()
    job.refresh_from_db()
    assert (run.stopped, job.listed_all, job.files_total) == (None, True, files)
    names = ["same", *(f"same-{number}" for number in range(2, files + 1))]
    assert list(job.files.order_by("position").values_list("name", flat=True)) == names
    assert [item.name for item in fed] == names
    assert {item.row for item in fed} == set(job.files.values_list("pk", flat=True))


def test_a_run_that_was_stopped_does_not_wait_for_the_database(
    job: DownloadJob, run: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: Any) -> None:
        raise OperationalError("it is away")

    monkeypatch.setattr(listing_rows, "add_files", away)
    run.stop("enough", keep=True)
    feeder = Feeder(job, ME, run, _source(5))
    feeder.start()
    feeder.join(30)
    assert (run.stopped, job.files.count()) == ("enough", 0)


class _TooLong(UrlList):
    """A list that ends before the source does."""

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        yield from super().entries(after)
        raise ListingTooLong("more than 5 files; 'x' and all files after it were left out")


def test_of_a_listing_that_is_too_long_the_first_files_are_fetched_and_the_job_says_so(
    job: DownloadJob, run: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[Item] = []
    monkeypatch.setattr(run, "feed", fed.extend)
    urls = [f"https://files.example.com/{number}/same" for number in range(5)]
    feeder = Feeder(job, ME, run, _TooLong(urls))
    feeder.start()
    feeder.join(30)
    assert len(fed) == 5  # also those of the last, incomplete batch
    assert (run.stopped, run.ended) == (None, True)
    assert run_control.record_end(run, ME) == "failed"
    job.refresh_from_db()
    assert job.error == "more than 5 files; 'x' and all files after it were left out"
    assert (job.files_total, job.listed_all) == (5, False)
