"""System checks of downloads: their packages, and settings that do not fit each other."""

import importlib.util
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import connections, router

from cacheapp import conf

Messages = list[checks.CheckMessage]


@checks.register(checks.Tags.models)
def check_cacheapp(**_: Any) -> Messages:
    """E010: report that `cacheapp` itself is missing, whose checks, pages and templates they need."""
    if apps.is_installed("cacheapp"):
        return []
    return [
        checks.Error(
            "'cacheapp.downloads' is in INSTALLED_APPS, but 'cacheapp' is not.",
            hint="Add 'cacheapp' to INSTALLED_APPS.",
            id="cacheapp.E010",
        )
    ]


@checks.register(checks.Tags.models)
def check_time_zones(**_: Any) -> Messages:
    """E011: report that the database would get times without a zone."""
    if settings.USE_TZ or not apps.is_installed("cacheapp.downloads"):
        return []
    return [
        checks.Error(
            "'cacheapp.downloads' requires USE_TZ = True, found False: it stores times with their zone, which "
            "Django then refuses to write into SQLite and MySQL.",
            hint="Set USE_TZ to True (Django's default since 5.0). The caches work with both values.",
            id="cacheapp.E011",
        )
    ]


@checks.register(checks.Tags.caches)
def check_packages(**_: Any) -> Messages:
    """E006: report that a package is not installed which this app or a setting requires."""
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    needs = []
    if apps.is_installed("cacheapp.downloads"):
        needs.append(("'cacheapp.downloads' in INSTALLED_APPS", "urllib3", "downloads"))
    if found.download_buckets:
        needs.append(("CACHEAPP['DOWNLOAD_BUCKETS']", "botocore", "s3"))
    if found.download_runner == "celery":
        needs.append(("CACHEAPP['DOWNLOAD_RUNNER'] = 'celery'", "celery", "celery"))
    return [
        checks.Error(
            f"{setting} requires the package {package}, which is not installed.",
            hint=f"Run: pip install 'cacheapp[{extra}]'",
            id="cacheapp.E006",
        )
        for setting, package, extra in needs
        if importlib.util.find_spec(package) is None
    ]


@checks.register(checks.Tags.caches)
def check_tasks(**_: Any) -> Messages:
    """E008: report that Django's Tasks framework is missing, or has no such backend."""
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    if found.download_runner != "tasks":
        return []
    runner, backend = "CACHEAPP['DOWNLOAD_RUNNER'] = 'tasks'", found.download_tasks_backend
    if importlib.util.find_spec("django.tasks") is None:
        message = f"{runner} requires Django 6; found {django.get_version()}."
        hint = "Use 'worker' or 'celery', or upgrade Django."
        return [checks.Error(message, hint=hint, id="cacheapp.E008")]
    entry = getattr(settings, "TASKS", {}).get(backend, {})
    path = entry.get("BACKEND", "")
    if path and path not in _NO_QUEUE:
        return []
    shown = f"TASKS[{backend!r}] is {path or 'not set'}"
    return [
        checks.Error(
            f"{runner}, but {shown}: no worker would run the jobs.",
            hint="Install a backend with a queue, such as django-tasks-db, and name it in TASKS.",
            id="cacheapp.E008",
        )
    ]


_NO_QUEUE = frozenset(
    f"django.tasks.backends.{name}" for name in ("immediate.ImmediateBackend", "dummy.DummyBackend")
)


@checks.register(checks.Tags.caches)
def check_database(**_: Any) -> Messages:
    """W018: report a database on which downloads are not tested."""
    if not apps.is_installed("cacheapp.downloads"):  # the app was removed after this was imported
        return []
    alias = router.db_for_write(apps.get_model("cacheapp_downloads", "DownloadJob"))
    vendor = connections[alias].vendor
    if vendor in ("sqlite", "postgresql"):
        return []
    return [
        checks.Warning(
            f"Downloads are kept in DATABASES[{alias!r}], which is {vendor}. They are tested with SQLite and "
            "PostgreSQL only; on MySQL and MariaDB processes that change a job at the same time get "
            "deadlock errors.",
            hint="Give the app cacheapp_downloads another database, by a router.",
            id="cacheapp.W018",
        )
    ]


@checks.register(checks.Tags.caches)
def check_streams(**_: Any) -> Messages:
    """W009: report more event streams than the threads of a worker allow."""
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    if found.threads is None or found.download_streams < found.threads:
        return []
    return [
        checks.Warning(
            f"CACHEAPP['DOWNLOAD_STREAMS'] is {found.download_streams}, but a worker has "
            f"{found.threads} threads: it serves at most {found.threads - 1} streams, to keep one thread free.",
            hint=f"Set DOWNLOAD_STREAMS below {found.threads}.",
            id="cacheapp.W009",
        )
    ]


@checks.register(checks.Tags.caches)
def check_quota(**_: Any) -> Messages:
    """W014: report a quota of files that is smaller than a job may be."""
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    if found.download_max_user_files >= found.download_max_files:
        return []
    return [
        checks.Warning(
            f"CACHEAPP['DOWNLOAD_MAX_USER_FILES'] is {found.download_max_user_files}, less than "
            f"DOWNLOAD_MAX_FILES, which is {found.download_max_files}: no bucket can be downloaded over "
            "HTTP, because a prefix counts with DOWNLOAD_MAX_FILES until it is listed.",
            hint="Raise DOWNLOAD_MAX_USER_FILES, or lower DOWNLOAD_MAX_FILES.",
            id="cacheapp.W014",
        )
    ]
