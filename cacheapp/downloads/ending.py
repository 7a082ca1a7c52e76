"""How a queued job ends that has no run: cancelled before it began, or never to begin."""

from cacheapp.downloads import adopting, ledger
from cacheapp.downloads.fencing import Fence
from cacheapp.downloads.journal import Journal
from cacheapp.downloads.ledger import Owner
from cacheapp.downloads.models import DownloadJob
from cacheapp.downloads.plan import Report
from cacheapp.downloads.states import FileState


def end(job: DownloadJob, owner: Owner, error: str) -> None:
    """End a queued job of ours; what an earlier run has fetched counts, and its partial files go.

    Earlier runs are shut out first: none of them names a file once the end can be seen.
    """
    fence = ledger.fence_of(job, job.token)
    if fence is None or not fence.is_wanted():
        adopting.end_waiting(job, owner, [], error)
        return
    fence.raise_()
    if not ledger.has_token(job.id, owner, job.token):
        fence.withdraw()
        return
    if adopting.end_waiting(job, owner, _whole(job, fence), error):
        fence.remove()


def _whole(job: DownloadJob, fence: Fence) -> list[Report]:
    """Return the files that got their names though no run could record it."""
    notes = Journal(fence.path, fence.token).read()
    found = []
    for item in ledger.unfinished(job.id):
        noted = notes.of(item.position, fence.directory / item.name)
        if noted is not None:
            found.append(Report(item, FileState.SUCCEEDED, noted.size, "", noted.sha256))
    return found
