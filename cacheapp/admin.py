"""Jobs and files in Django's admin: read-only, with actions to cancel and retry jobs.

No form writes a row, because the job's owner writes it at the same time.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.extras import needed_for

_MAX_MESSAGES = 20

if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[Any]
else:
    _Admin = admin.ModelAdmin


class _ReadOnly(_Admin):
    """No form adds, changes or deletes a row."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        del request, obj
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def has_control_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may cancel and retry jobs."""
        return request.user.has_perm("cacheapp.change_downloadjob")


@admin.register(DownloadJob)
class DownloadJobAdmin(_ReadOnly):
    """Jobs, newest first."""

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

    @admin.action(description="Cancel", permissions=["control"])
    def cancel(self, request: HttpRequest, jobs: QuerySet[DownloadJob]) -> None:
        """Cancel the selected jobs."""
        self._apply(request, jobs, "cancel", "cancelled")

    @admin.action(description="Retry files that failed or were cancelled", permissions=["control"])
    def retry(self, request: HttpRequest, jobs: QuerySet[DownloadJob]) -> None:
        """Queue the selected jobs again."""
        self._apply(request, jobs, "retry", "queued again")

    def _apply(
        self,
        request: HttpRequest,
        jobs: QuerySet[DownloadJob],
        command: str,
        done: str,
    ) -> None:
        with needed_for("A download", "downloads"):
            from cacheapp.downloads.runners import commands  # noqa: PLC0415 (an extra)
            from cacheapp.downloads.runners.dispatch import BrokerUnavailable  # noqa: PLC0415

        count = 0
        refusals = []
        for job in jobs:
            try:
                getattr(commands, command)(job)
                count += 1
            except (commands.InvalidTransition, BrokerUnavailable) as exc:
                refusals.append(f"Job {job.id}: {exc}")
        if count:
            self.message_user(request, f"{count} {done}", messages.SUCCESS)
        for refusal in refusals[:_MAX_MESSAGES]:
            self.message_user(request, refusal, messages.WARNING)


@admin.register(DownloadFile)
class DownloadFileAdmin(_ReadOnly):
    """Files, by job and position in the order."""

    list_display = ("name", "state", "bytes_done", "tries", "error", "job")
    list_filter = ("state",)
    search_fields = ("name", "url")
    ordering = ("job", "position")
    raw_id_fields = ("job",)
