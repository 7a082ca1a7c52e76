"""Jobs and files in Django's admin: to look at, and to cancel and try again.

Nothing is saved from here: rows are the ledger's to write, because their owner lives and writes too.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.runners import commands
from cacheapp.downloads.runners.commands import InvalidTransition
from cacheapp.downloads.runners.dispatch import BrokerUnavailable

_MAX_TOLD = 20

if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[Any]
else:
    _Admin = admin.ModelAdmin


class _LookOnly(_Admin):
    """Nothing is added, changed or deleted by a form."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        del request, obj
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def has_move_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may cancel and try again."""
        return request.user.has_perm("cacheapp.change_downloadjob")


@admin.register(DownloadJob)
class DownloadJobAdmin(_LookOnly):
    """Jobs, the newest first."""

    list_display = ("id", "state", "progress", "owner_pid", "adoptions", "created_by", "created_at")
    list_filter = ("state",)
    search_fields = ("id", "source", "error")
    ordering = ("-created_at", "-id")
    readonly_fields = ("progress",)
    actions = ("cancel", "retry")

    @admin.display(description="files")
    def progress(self, job: DownloadJob) -> str:
        """Link to the job's files."""
        query = urlencode({"job__id__exact": job.id})
        place = f"{reverse('admin:cacheapp_downloadfile_changelist')}?{query}"
        failed = f", {job.files_failed} failed" if job.files_failed else ""
        return format_html(
            '<a href="{}">{} of {}{}</a>', place, job.files_done, job.files_total, failed
        )

    @admin.action(description="Cancel", permissions=["move"])
    def cancel(self, request: HttpRequest, jobs: QuerySet[DownloadJob]) -> None:
        """Leave word that jobs are to be cancelled."""
        self._ask(request, jobs, commands.cancel, "cancelled")

    @admin.action(description="Try again what failed or was cancelled", permissions=["move"])
    def retry(self, request: HttpRequest, jobs: QuerySet[DownloadJob]) -> None:
        """Queue jobs again."""
        self._ask(request, jobs, commands.retry, "queued again")

    def _ask(
        self,
        request: HttpRequest,
        jobs: QuerySet[DownloadJob],
        ask: Callable[[DownloadJob], bool],
        done: str,
    ) -> None:
        count = 0
        refusals = []
        for job in jobs:
            try:
                ask(job)
                count += 1
            except (InvalidTransition, BrokerUnavailable) as exc:
                refusals.append(f"Job {job.id}: {exc}")
        if count:
            self.message_user(request, f"{count} {done}", messages.SUCCESS)
        for refusal in refusals[:_MAX_TOLD]:
            self.message_user(request, refusal, messages.WARNING)


@admin.register(DownloadFile)
class DownloadFileAdmin(_LookOnly):
    """Files, by job and place in the order."""

    list_display = ("name", "state", "bytes_done", "tries", "error", "job")
    list_filter = ("state",)
    search_fields = ("name", "url")
    ordering = ("job", "position")
    raw_id_fields = ("job",)
