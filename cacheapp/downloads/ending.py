"""How a queued job ends that has no run: cancelled before it began, or never to begin."""

from cacheapp.downloads import adopting, ledger
from cacheapp.downloads.ledger import Owner
from cacheapp.downloads.models import DownloadJob


def end(job: DownloadJob, owner: Owner, error: str) -> None:
    """End a queued job of ours; what an earlier run has fetched counts, and its partial files go.

    Earlier runs are shut out first: none of them names a file once the end can be seen. Raise
    `OSError` where they cannot be, and nothing was changed.
    """
    fence = ledger.fence_of(job, job.token)
    if fence is None or not fence.is_wanted():
        adopting.end_waiting(job, owner, [], error)
        return
    fence.raise_()
    if not ledger.has_token(job.id, owner, job.token):
        fence.withdraw()
        return
    if adopting.end_waiting(job, owner, ledger.whole(job, fence), error):
        fence.remove()
