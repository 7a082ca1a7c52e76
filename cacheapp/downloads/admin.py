"""Jobs and files in Django's admin: read-only but for titles, with actions to cancel and retry jobs.

No form writes a row, because the job's owner writes it at the same time: a title is one UPDATE of its
column. Users see their own jobs,
and managers all. No page shows the query string of a URL, and no filter or search compares it.
"""

import datetime as dt
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import BooleanField, Model, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html

from cacheapp.access_settings import user_key, user_name
from cacheapp.downloads.jobs.actors import (
    MANAGE_ALL,
    Actor,
    shown_source,
    shown_url,
    visible_jobs,
)
from cacheapp.downloads.jobs.audit import visible_entries
from cacheapp.downloads.jobs.models import AuditEntry, DownloadFile, DownloadJob
from cacheapp.downloads.jobs.quota import QuotaExceeded
from cacheapp.downloads.jobs.titles import set_title
from cacheapp.downloads.plan import MAX_TITLE_CHARS
from cacheapp.extras import needed_for
from cacheapp.typed_values import line_of_text

_MAX_MESSAGES = 20
_SIZES = frozenset(["bytes_done", "bytes_total", "expected_size", "limit_rate"])

if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[Any]
    _Form = forms.ModelForm[DownloadJob]
else:
    _Admin = admin.ModelAdmin
    _Form = forms.ModelForm


def _size(count: int | None) -> str:
    return "-" if count is None else filesizeformat(count)


def _yes_or_no(value: bool) -> str:  # noqa: FBT001 (the value of a field)
    return "yes" if value else "no"


@functools.cache  # the admin compares them
def _shown(name: str, label: str) -> Callable[[Model], str]:
    """Return the function that shows a column for people."""
    show: Callable[[Any], str] = _size if name in _SIZES else _yes_or_no

    @admin.display(description=label)
    def shown(row: Model) -> str:
        return show(getattr(row, name))

    return shown


def _actor(request: HttpRequest) -> Actor:
    user = request.user
    return Actor(user_key(user), user_name(user), "admin", user.has_perm(MANAGE_ALL))


class _ReadOnly(_Admin):
    """No form adds, changes or deletes a row."""

    show_full_result_count = False
    list_per_page = 50
    secret_fields = frozenset(
        ["url", "source", "webhook", "notifications", "idempotency_key", "idempotency_digest"]
    )
    """Columns that a lookup in the address may not compare: it could guess them letter by letter."""

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """Return the fields, links first; sizes are in units for people, and booleans are words.

        The admin's sign for "no" is a red cross, which looks like a failure.
        """
        links = self.get_readonly_fields(request, obj)
        columns = [name for name in super().get_fields(request, obj) if name not in links]
        return [*links, *map(self._for_people, columns)]

    def _for_people(self, name: Any) -> Any:
        field = self.opts.get_field(name) if name in _SIZES or name in self._booleans() else None
        return name if field is None else _shown(name, str(getattr(field, "verbose_name", name)))

    def _booleans(self) -> set[str]:
        return {field.name for field in self.opts.fields if isinstance(field, BooleanField)}

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Refuse lookups of secret columns, with Django's 400."""
        is_secret = not self.secret_fields.isdisjoint(lookup.split("__"))
        return not is_secret and super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        del request, obj
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def has_control_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may cancel and retry jobs."""
        return request.user.has_perm("cacheapp_downloads.change_downloadjob")


class _TitleForm(_Form):
    """The only field that a form changes."""

    class Meta:
        model = DownloadJob
        fields = ("title",)

    def clean_title(self) -> str:
        try:
            return str(line_of_text(MAX_TITLE_CHARS)(self.cleaned_data["title"]))
        except ValueError as exc:
            raise ValidationError(f"Expected {exc}.") from exc


@admin.register(DownloadJob)
class DownloadJobAdmin(_ReadOnly):
    """Jobs, newest first."""

    form = _TitleForm
    list_display = (
        "id",
        "page",
        "title",
        "state",
        "progress",
        "size",
        "owner_pid",
        "adoptions",
        "created_by",
        "created_at",
    )
    list_filter = ("state",)
    search_fields = ("id", "title", "created_by", "error")
    ordering = ("-created_at", "-id")
    exclude = ("source", "webhook", "creator", "idempotency_key", "idempotency_digest")
    readonly_fields = ("page", "progress", "trail", "shown_source", "shown_webhook")
    actions = ("cancel", "retry")

    def get_queryset(self, request: HttpRequest) -> QuerySet[DownloadJob]:
        """Return the user's own jobs, or all."""
        return super().get_queryset(request).filter(pk__in=visible_jobs(_actor(request)))

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether the user may change titles."""
        del obj
        return self.has_control_permission(request)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[Any, ...]:
        """Return all fields but the title."""
        del request, obj
        columns = [field.name for field in self.opts.concrete_fields]
        shown = [name for name in columns if name != "title" and name not in self.exclude]
        return (*map(self._for_people, shown), *self.readonly_fields)

    def save_model(self, request: HttpRequest, obj: DownloadJob, form: Any, change: bool) -> None:  # noqa: FBT001 (as Django calls it)
        """Write the title alone."""
        del form, change
        set_title(obj, obj.title, _actor(request))

    @admin.display(description="source")
    def shown_source(self, job: DownloadJob) -> str:
        """Return the source without query strings."""
        return shown_source(job.source, whole=False) or "-"

    @admin.display(description="webhook")
    def shown_webhook(self, job: DownloadJob) -> str:
        """Return the webhook without its query string."""
        return shown_url(job.webhook, whole=False) or "-"

    @admin.display(description="actions")
    def trail(self, job: DownloadJob) -> str:
        """Link to the job's entries in the audit trail."""
        query = urlencode({"job__exact": job.id})
        place = f"{reverse('admin:cacheapp_downloads_auditentry_changelist')}?{query}"
        return format_html('<a href="{}">{}</a>', place, "audit entries of the job")

    @admin.display(description="page")
    def page(self, job: DownloadJob) -> str:
        """Link to the job's page, if the project has the pages."""
        try:
            place = reverse("cacheapp:download_page", args=[job.id])
        except NoReverseMatch:
            return "-"
        return format_html('<a href="{}">{}</a>', place, "page of the job")

    @admin.display(description="size", ordering="bytes_done")
    def size(self, job: DownloadJob) -> str:
        """Return the size of what was fetched, for people."""
        return filesizeformat(job.bytes_done)

    @admin.display(description="files")
    def progress(self, job: DownloadJob) -> str:
        """Link to the job's files."""
        query = urlencode({"job__id__exact": job.id})
        place = f"{reverse('admin:cacheapp_downloads_downloadfile_changelist')}?{query}"
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
                getattr(commands, command)(job, _actor(request))
                count += 1
            except (commands.InvalidTransition, BrokerUnavailable, QuotaExceeded) as exc:
                refusals.append(f"Job {job.id}: {exc}")
        if count:
            self.message_user(request, f"{count} {done}", messages.SUCCESS)
        for refusal in refusals[:_MAX_MESSAGES]:
            self.message_user(request, refusal, messages.WARNING)


@admin.register(DownloadFile)
class DownloadFileAdmin(_ReadOnly):
    """Files, by job and position in the order."""

    list_display = ("name", "state", "size", "tries", "error", "job")
    list_filter = ("state",)
    search_fields = ("name",)
    ordering = ("job", "position")
    raw_id_fields = ("job",)
    exclude = ("url",)
    readonly_fields = ("shown_url",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DownloadFile]:
        """Return the files of the user's own jobs, or of all."""
        return super().get_queryset(request).filter(job__in=visible_jobs(_actor(request)))

    @admin.display(description="size", ordering="bytes_done")
    def size(self, file: DownloadFile) -> str:
        """Return the size of what was fetched, for people."""
        return filesizeformat(file.bytes_done)

    @admin.display(description="URL")
    def shown_url(self, file: DownloadFile) -> str:
        """Return the URL without its query string."""
        return shown_url(file.url, whole=False)


@admin.register(AuditEntry)
class AuditEntryAdmin(_ReadOnly):
    """Actions on jobs, also on removed ones, newest first."""

    list_display = ("time", "action", "job", "actor_name", "via", "detail")
    list_filter = ("action", "via")
    search_fields = ("job", "actor_name")
    ordering = ("-at", "-id")

    @admin.display(description="time (UTC)", ordering="at")
    def time(self, entry: AuditEntry) -> str:
        """Return the time with its seconds."""
        return f"{entry.at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEntry]:
        """Return the actions on the user's own jobs, or on all."""
        return super().get_queryset(request).filter(pk__in=visible_entries(_actor(request)))
