"""What the runs before this one have left of a job: files that are whole, and bytes to go on from."""

from cacheapp.downloads.engine.transfer_options import Existing, Fetched
from cacheapp.downloads.plan import Item, Plan, Report
from cacheapp.downloads.states import FileState
from cacheapp.downloads.storage.journal import Journal, Notes, Published
from cacheapp.downloads.storage.partial import Leftover, find_leftovers
from cacheapp.downloads.storage.run_directory import Fence


class Inherited:
    """Read once, by `look`, when the fence is raised; then asked by the run's threads."""

    def __init__(self, plan: Plan, fence: Fence, existing: Existing) -> None:
        self._plan = plan
        self._fence = fence
        self._skips = existing is Existing.SKIP
        self._journal = Journal(fence.path, plan.token)
        self._notes = Notes()
        self._leftovers: dict[int, Leftover] = {}

    def look(self) -> None:
        """Look at what is there, and begin this run's own journal."""
        self._leftovers = find_leftovers(self._fence.path, self._fence.job)
        self._notes = self._journal.read()
        self._journal.open()

    def close(self) -> None:
        """Note no more."""
        self._journal.close()

    @property
    def journal(self) -> Journal | None:
        """Where final names are to be noted, if anybody may go on with the job."""
        return self._journal if self._plan.resumable else None

    def leftover(self, item: Item) -> Leftover | None:
        """Return the bytes of a file that may be gone on from."""
        return self._leftovers.get(item.position)

    def whole(self, item: Item) -> Report | None:
        """Return that the file is there already: of a run that could not record it, or skipped."""
        target = self._plan.directory / item.name
        if self._skips and target.is_file() and item.size in {None, target.stat().st_size}:
            return Report(item, FileState.SUCCEEDED, error="was there already")
        if (noted := self._notes.of(item.position, target)) is not None:
            return succeeded(item, noted, 0)
        if self._plan.own and self._plan.token > 1:  # a power cut took the note, and left the name
            self._fence.take_away(target, item.position)
        return None

    def named_meanwhile(self, item: Item) -> Report | None:
        """Return that the run before this one named the file as we took over (`fencing`)."""
        if self._journal.has_grown():
            self._notes = self._journal.read()
        noted = self._notes.of(item.position, self._plan.directory / item.name)
        return None if noted is None else succeeded(item, noted, 0)


def succeeded(item: Item, found: Fetched | Published, tries: int) -> Report:
    """Return that a file is whole."""
    state = FileState.SUCCEEDED
    return Report(item, state, bytes_done=found.size, sha256=found.sha256, tries=tries)
