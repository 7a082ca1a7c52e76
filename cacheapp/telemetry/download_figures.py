"""What downloads count: in shared memory of this machine, and in the database.

The only module of `telemetry` that imports downloads, and it is imported only where they are installed.
"""

from django.db.models import Count, Sum

from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners import metrics
from cacheapp.downloads.states import JobState


def machine_totals() -> dict[str, int]:
    """Return what all processes of this machine counted; see `metrics.NAMES`."""
    return metrics.totals()


def jobs_by_state() -> dict[str, int]:
    """Return how many jobs the database has in each state; also the states without one."""
    counted = DownloadJob.objects.order_by().values_list("state").annotate(Count("pk"))
    return {**{state.value: 0 for state in JobState}, **dict(counted)}


def files_by_state() -> dict[str, int]:
    """Return how many files the jobs in the database have in each state.

    From the sums that each job keeps: counting a million rows at each scrape would take seconds.
    """
    sums = DownloadJob.objects.aggregate(
        total=Sum("files_total"), done=Sum("files_done"), failed=Sum("files_failed")
    )
    total, done, failed = (sums[name] or 0 for name in ("total", "done", "failed"))
    return {"succeeded": done, "failed": failed, "unfinished": max(0, total - done - failed)}
