"""Jobs of large files that are fetched in parts, for tests; as a program, a run that can be killed.

python -m tests.integration.downloads.engine.part_jobs JOB TOKEN DIRECTORY URL
"""

import contextlib
import hashlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from cacheapp.downloads.engine.run import JobRun, QueuedFile
from cacheapp.downloads.engine.thread_pool import ThreadPool
from cacheapp.downloads.engine.transfer_options import TransferLimits
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.plan import FileReport, Item, Plan, RetryPolicy
from cacheapp.downloads.states import FileState
from cacheapp.downloads.storage.range_journal import Span, read_ranges
from cacheapp.processes.waiting import until
from tests.objects import Thing, Version
from tests.origin import Origin, body

SIZE = 4_000_000
PARTS = 4
WHOLE = body({"n": "1", "bytes": str(SIZE)})
V1 = Version(WHOLE, '"v1"')
NEW = body({"n": "2", "bytes": str(SIZE)})
V2 = Version(NEW, '"v2"')
LIMITS = TransferLimits(10**8, split_from_bytes=2_000_000, read_s=60, stall_s=60)
QUICK = RetryPolicy(first_wait_s=0.01, max_wait_s=0.1)


def new_run(  # noqa: PLR0913 (what the tests vary)
    job: uuid.UUID,
    token: int,
    directory: Path,
    items: list[Item],
    *,
    threads: int = PARTS,
    parts: int = PARTS,
    per_host: int | None = None,
    limits: TransferLimits = LIMITS,
    retries: RetryPolicy = QUICK,
) -> JobRun:
    plan = Plan(
        *(job, directory, threads, None, tuple(items)),
        networks=read_networks(["127.0.0.0/8"]),
        token=token,
        resumable=True,
        retries=retries,
        parts=parts,
    )
    pool: ThreadPool[QueuedFile] = ThreadPool(threads, per_host)
    return JobRun(plan, limits, lambda: None, pool)


class PartsJob:
    """A job whose runs resume from its directory."""

    def __init__(self, origin: Origin, directory: Path) -> None:
        self.directory = directory
        self.origin = origin
        self.id = uuid.uuid4()
        self._token = 0
        self._runs: list[JobRun] = []

    def next_token(self) -> int:
        self._token += 1
        return self._token

    def items(self, *names: str, checksum: str = "", etag: str = "") -> list[Item]:
        urls = [f"{self.origin.url}/thing/{name}" for name in names or ["x"]]
        size = SIZE if etag else None
        return [
            Item(n, n, url, url.rpartition("/")[2], checksum, size, etag)
            for n, url in enumerate(urls)
        ]

    def start(self, items: list[Item] | None = None, **options: object) -> JobRun:
        run = new_run(
            self.id,
            self.next_token(),
            self.directory,
            self.items() if items is None else items,
            **options,  # type: ignore[arg-type]
        )
        self._runs.append(run)
        run.start()
        return run

    def end(self, run: JobRun) -> list[FileReport]:
        """Wait for the end of a run, as its owner does, and return the reports of the files."""

        def ended() -> bool:
            run.enforce_limits()
            return run.ended

        until(ended, f"{run} to end", 150)
        reports = sorted(run.changes()[0], key=lambda it: it.item.position)
        run.clean(keep=run.has_partial_files())
        return reports

    def run(self, items: list[Item] | None = None, **options: object) -> FileReport:
        return self.end(self.start(items, **options))[0]

    def stop(self, run: JobRun) -> None:
        """Pause a run."""
        run.stop("paused", FileState.QUEUED, keep=True)
        self.end(run)

    def close(self) -> None:
        for run in self._runs:
            run.stop("the test is over")
            assert run.join(60)
            run.clean()

    def recorded(self) -> tuple[Span, ...]:
        """Return the ranges that are recorded as on disk."""
        found: tuple[Span, ...] = ()
        for path in self.directory.glob(".*/*.split"):
            with contextlib.suppress(FileNotFoundError):
                found = max(found, read_ranges(path, SIZE), key=size_of)
        return found

    def assert_whole(self, report: FileReport, expected: bytes = WHOLE, name: str = "x") -> None:
        assert (report.state, report.error) == (FileState.SUCCEEDED, "")
        assert report.sha256 == hashlib.sha256(expected).hexdigest()
        assert (self.directory / name).read_bytes() == expected

    def assert_clean(self, *names: str) -> None:
        assert sorted(path.name for path in self.directory.iterdir()) == sorted(names or ["x"])


def size_of(spans: tuple[Span, ...]) -> int:
    return sum(end - first for first, end in spans)


def requested(thing: Thing, since: int = 0) -> list[Span]:
    """Return the ranges of requests, in order of their first byte; without a range, all bytes."""
    spans = []
    for fields in thing.asked[since:]:
        first, _, last = fields.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        spans.append((int(first), int(last) + 1 if last else SIZE))
    return sorted(spans)


@contextlib.contextmanager
def parts_job(origin: Origin, directory: Path) -> Iterator[PartsJob]:
    job = PartsJob(origin, directory)
    try:
        yield job
    finally:
        job.close()


def main() -> None:
    job, token, directory, url = sys.argv[1:]
    item = Item(0, 0, url, url.rpartition("/")[2])
    run = new_run(uuid.UUID(job), int(token), Path(directory), [item])
    run.start()
    print("started", flush=True)
    run.join(600)


if __name__ == "__main__":
    main()
