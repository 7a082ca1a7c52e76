"""The URLs of downloads, which `cacheapp.urls` includes if `cacheapp.downloads` is installed."""

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.urls import path

from cacheapp.extras import needed_for

if not apps.is_installed("cacheapp.downloads"):
    raise ImproperlyConfigured(
        "cacheapp.downloads.urls requires 'cacheapp.downloads' in INSTALLED_APPS. Add it, and run "
        "'manage.py migrate'. A URLconf includes 'cacheapp.urls' only, which includes this module."
    )

with needed_for("cacheapp.downloads.urls", "downloads"):
    from cacheapp.views import downloads, events, job_actions, pages_downloads, pages_job

urlpatterns = [
    path("downloads/", pages_downloads.downloads, name="downloads_page"),
    path("downloads/actions", pages_downloads.bulk_action, name="downloads_action"),
    path("downloads/<uuid:job_id>/", pages_job.download, name="download_page"),
    path("downloads/<uuid:job_id>/action", pages_job.job_action, name="download_action"),
    path("downloads/<uuid:job_id>/map", pages_job.file_states, name="download_map"),
    path("downloads/<uuid:job_id>/failed", pages_job.failed_files, name="download_failed"),
    path("downloads/<uuid:job_id>/files/<int:position>", pages_job.file, name="download_file"),
    path("downloads/<uuid:job_id>/files.zip", pages_job.all_files, name="download_zip"),
    path("api/downloads", downloads.downloads, name="downloads"),
    path("api/downloads/<uuid:job_id>", downloads.download, name="download"),
    path("api/downloads/<uuid:job_id>/files", downloads.files, name="download_files"),
    path("api/downloads/<uuid:job_id>/events", events.events, name="download_events"),
    path("api/downloads/<uuid:job_id>/pause", job_actions.pause, name="download_pause"),
    path("api/downloads/<uuid:job_id>/resume", job_actions.resume, name="download_resume"),
    path("api/downloads/<uuid:job_id>/cancel", job_actions.cancel, name="download_cancel"),
    path("api/downloads/<uuid:job_id>/retry", job_actions.retry, name="download_retry"),
]
