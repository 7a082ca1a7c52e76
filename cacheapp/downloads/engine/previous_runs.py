"""What earlier runs of a job left on disk: complete files, and partial files to resume from."""

from cacheapp.downloads.engine.transfer_options import Existing, FetchedFile, TransferLimits
from cacheapp.downloads.plan import FileReport, Item, Plan
from cacheapp.downloads.states import FileState
from cacheapp.downloads.storage.journal import Journal, JournalEntries, PublishedFile
from cacheapp.downloads.storage.partial import LeftoverFile, find_leftovers
from cacheapp.downloads.storage.presence import is_present
from cacheapp.downloads.storage.run_directory import RunDirectory


class PreviousRuns:
    """Loaded once, after the takeover of the run directory; then read by the run's threads."""

    def __init__(self, plan: Plan, directory: RunDirectory, limits: TransferLimits) -> None:
        self._plan = plan
        self._directory = directory
        self._skips = limits.existing is Existing.SKIP
        self._verify = limits.verify
        self._journal = Journal(directory.path, plan.token)
        self._entries = JournalEntries()
        self._leftovers: dict[int, LeftoverFile] = {}

    def load(self) -> None:
        """Read what earlier runs left, and open this run's journal."""
        self._leftovers = find_leftovers(self._directory.path, self._directory.job)
        self._entries = self._journal.read()
        self._journal.open()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    @property
    def journal(self) -> Journal | None:
        """Where published names are recorded; `None` if no run may resume this job."""
        return self._journal if self._plan.resumable else None

    def leftover(self, item: Item) -> LeftoverFile | None:
        """Return the partial file to resume from, if there is one."""
        return self._leftovers.get(item.position)

    def completed(self, item: Item) -> FileReport | None:
        """Return a success report if the file is already complete, or exists and is skipped.

        Raise `OSError` if its name is too long for the file system: before anything is fetched.
        """
        target = self._plan.directory / item.name
        checksum = item.checksum if self._verify else ""
        if self._skips and is_present(target, item.size, checksum):
            size, error = target.stat().st_size, "the file already existed"
            return FileReport(item, FileState.SUCCEEDED, bytes_done=size, error=error)
        noted = self._entries.matching(item.position, target)
        if noted is not None:
            checksum = f"sha256:{noted.sha256}" if self._verify and noted.sha256 else checksum
            if is_present(target, noted.size, checksum):
                return success_report(item, noted, 0)
        # A power cut removed the journal's entry but not the file.
        if self._plan.own and self._plan.token > 1:
            self._directory.unpublish(target, item.position)
        return None

    def published_during_takeover(self, item: Item) -> FileReport | None:
        """Return a success report if the previous run published the file during the takeover.

        See the invariants of `run_directory`.
        """
        if self._journal.has_grown():
            self._entries = self._journal.read()
        noted = self._entries.matching(item.position, self._plan.directory / item.name)
        return None if noted is None else success_report(item, noted, 0)


def success_report(item: Item, found: FetchedFile | PublishedFile, tries: int) -> FileReport:
    """Return the report of a complete file."""
    note = found.note if isinstance(found, FetchedFile) else ""
    return FileReport(item, FileState.SUCCEEDED, found.size, note, found.sha256, tries)
