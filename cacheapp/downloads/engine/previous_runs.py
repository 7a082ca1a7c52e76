"""What the runs before this one have left of a job: files that are whole, and bytes to go on from."""

from cacheapp.downloads.engine.transfer_options import Existing, FetchedFile
from cacheapp.downloads.plan import FileReport, Item, Plan
from cacheapp.downloads.states import FileState
from cacheapp.downloads.storage.journal import Journal, JournalEntries, PublishedFile
from cacheapp.downloads.storage.partial import LeftoverFile, find_leftovers
from cacheapp.downloads.storage.run_directory import RunDirectory


class PreviousRuns:
    """Read once, by `load`, when the fence is raised; then asked by the run's threads."""

    def __init__(self, plan: Plan, directory: RunDirectory, existing: Existing) -> None:
        self._plan = plan
        self._directory = directory
        self._skips = existing is Existing.SKIP
        self._journal = Journal(directory.path, plan.token)
        self._notes = JournalEntries()
        self._leftovers: dict[int, LeftoverFile] = {}

    def load(self) -> None:
        """Look at what is there, and begin this run's own journal."""
        self._leftovers = find_leftovers(self._directory.path, self._directory.job)
        self._notes = self._journal.read()
        self._journal.open()

    def close(self) -> None:
        """Note no more."""
        self._journal.close()

    @property
    def journal(self) -> Journal | None:
        """Where final names are to be noted, if anybody may go on with the job."""
        return self._journal if self._plan.resumable else None

    def leftover(self, item: Item) -> LeftoverFile | None:
        """Return the bytes of a file that may be gone on from."""
        return self._leftovers.get(item.position)

    def completed(self, item: Item) -> FileReport | None:
        """Return that the file is there already: of a run that could not record it, or skipped."""
        target = self._plan.directory / item.name
        if self._skips and target.is_file() and item.size in {None, target.stat().st_size}:
            return FileReport(item, FileState.SUCCEEDED, error="was there already")
        if (noted := self._notes.matching(item.position, target)) is not None:
            return success_report(item, noted, 0)
        if self._plan.own and self._plan.token > 1:  # a power cut took the note, and left the name
            self._directory.unpublish(target, item.position)
        return None

    def published_during_takeover(self, item: Item) -> FileReport | None:
        """Return that the run before this one named the file as we took over (`fencing`)."""
        if self._journal.has_grown():
            self._notes = self._journal.read()
        noted = self._notes.matching(item.position, self._plan.directory / item.name)
        return None if noted is None else success_report(item, noted, 0)


def success_report(item: Item, found: FetchedFile | PublishedFile, tries: int) -> FileReport:
    """Return that a file is whole."""
    state = FileState.SUCCEEDED
    return FileReport(item, state, bytes_done=found.size, sha256=found.sha256, tries=tries)
