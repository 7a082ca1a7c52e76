"""System checks of the CACHEAPP setting and of how it fits the rest of the project."""

import importlib.util
import stat
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_permission_codename
from django.core import checks
from django.urls import NoReverseMatch, reverse

from cacheapp import conf
from cacheapp.checks.caches import UNSAFE_DIRECTORY_HINT
from cacheapp.directory_trust import private_directory_problem, replaceable_reason

Messages = list[checks.CheckMessage]


@checks.register(checks.Tags.caches)
def check_setting(**_: Any) -> Messages:
    """E001: report each mistake in the CACHEAPP setting."""
    _found, mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    hint = "docs/reference/settings.md lists them."
    return [checks.Error(mistake, hint=hint, id="cacheapp.E001") for mistake in mistakes]


@checks.register(checks.Tags.security)
def check_tokens(**_: Any) -> Messages:
    """E005: report permissions of tokens that do not exist, and users in a project without users."""
    models = [model._meta for model in apps.get_app_config("cacheapp").get_models()]  # noqa: SLF001 (documented)
    codenames = [
        get_permission_codename(it, meta) for meta in models for it in meta.default_permissions
    ]
    codenames += [codename for meta in models for codename, _name in meta.permissions]
    known = {f"cacheapp.{codename}" for codename in codenames}
    tokens = conf.read(getattr(settings, "CACHEAPP", {}))[0].api_tokens
    has_users = apps.is_installed("django.contrib.auth")
    userless = [] if has_users else [token for token in tokens if token.user is not None]
    found: Messages = [
        checks.Error(
            f"CACHEAPP['API_TOKENS'][{token.name!r}] acts for the user {token.user!r}, but this "
            "project has no users.",
            hint="Add 'django.contrib.auth' to INSTALLED_APPS, or remove 'user' from the token.",
            id="cacheapp.E005",
        )
        for token in userless
    ]
    found += [
        checks.Error(
            f"CACHEAPP['API_TOKENS'][{token.name!r}] has the permission {permission!r}, which does "
            "not exist.",
            hint=f"Expected one of {', '.join(sorted(known))}.",
            id="cacheapp.E005",
        )
        for token in tokens
        for permission in sorted(token.permissions - known)
    ]
    return found


@checks.register(checks.Tags.security)
def check_own_directories(**_: Any) -> Messages:
    """E007: report that another user could change `STATE_DIR` or `DOWNLOAD_ROOT`."""
    found, mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    if mistakes:
        return []
    problems = {"STATE_DIR": private_directory_problem(conf.state_dir())}
    if found.download_root is not None:
        problems["DOWNLOAD_ROOT"] = replaceable_reason(found.download_root)
    return [
        checks.Error(
            f"CACHEAPP[{name!r}]: {reason}.", hint=UNSAFE_DIRECTORY_HINT, id="cacheapp.E007"
        )
        for name, reason in problems.items()
        if reason
    ]


@checks.register(checks.Tags.security, deploy=True)
def check_database_files(**_: Any) -> Messages:
    """W011: report SQLite databases that other users can open or replace."""
    found: Messages = []
    for alias, database in settings.DATABASES.items():
        if not str(database.get("ENGINE")).endswith("sqlite3"):
            continue
        path = Path(str(database.get("NAME")))
        if not path.is_file():
            continue
        if _others_can_open(path):
            mode = stat.S_IMODE(path.stat().st_mode)
            text = (
                f"other users can access {path} (mode {mode:04o}), which has sessions and password "
                "hashes."
            )
            found.append(_database_warning(alias, text, f"Run: chmod 600 {path}*"))
        if reason := replaceable_reason(path.parent):
            text = f"another user could replace {path}: {reason}."
            found.append(_database_warning(alias, text, UNSAFE_DIRECTORY_HINT))
    return found


def _database_warning(alias: str, text: str, hint: str) -> checks.Warning:
    return checks.Warning(f"DATABASES[{alias!r}]: {text}", hint=hint, id="cacheapp.W011")


def _others_can_open(path: Path) -> bool:
    mode = path.stat().st_mode
    way = [parent.stat().st_mode for parent in path.resolve().parents]
    return any(
        mode & access and all(parent & search for parent in way)
        for access, search in ((stat.S_IRWXG, stat.S_IXGRP), (stat.S_IRWXO, stat.S_IXOTH))
    )


@checks.register(checks.Tags.caches)
def check_packages(**_: Any) -> Messages:
    """E006: report settings that require a package of an extra, which is not installed."""
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    needs = []
    if found.download_root is not None:
        needs.append(("CACHEAPP['DOWNLOAD_ROOT']", "urllib3", "downloads"))
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


@checks.register(checks.Tags.urls)
def check_pages(**_: Any) -> Messages:
    """W010: report that the pages lack the script that updates them."""
    try:
        reverse("cacheapp:index")
    except NoReverseMatch:  # the project uses only the caches
        return []
    if apps.is_installed("django_htmx"):
        return []
    return [
        checks.Warning(
            "The pages of cacheapp are served, but 'django_htmx' is not in INSTALLED_APPS: their "
            "script is missing, so they do not update after they are loaded.",
            hint="Add 'django_htmx' to INSTALLED_APPS. The package comes with: pip install 'cacheapp[pages]'",
            id="cacheapp.W010",
        )
    ]
