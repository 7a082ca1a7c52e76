"""System checks of the CACHEAPP setting and of how it fits the rest of the project."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_permission_codename
from django.core import checks
from django.db import connections
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, resolve, reverse

from cacheapp import conf
from cacheapp.checks.caches import UNSAFE_DIRECTORY_HINT, unwritable_warnings
from cacheapp.directory_trust import private_directory_problem, replaceable_reason

Messages = list[checks.CheckMessage]

DOWNLOADS = "cacheapp.downloads"
_EARLIER_TABLE = "cacheapp_downloadjob"
_JOB_TABLES = {_EARLIER_TABLE, "cacheapp_downloads_downloadjob"}
"""Its name in releases before the app of downloads, and now."""


@checks.register(checks.Tags.caches)
def check_setting(**_: Any) -> Messages:
    """E001: report each mistake in the CACHEAPP setting."""
    _found, mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    hint = "docs/reference/settings.md lists them."
    return [checks.Error(mistake, hint=hint, id="cacheapp.E001") for mistake in mistakes]


@checks.register(checks.Tags.security)
def check_tokens(**_: Any) -> Messages:
    """E005: report permissions of tokens that do not exist, and users in a project without users."""
    known = _permissions()
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
            hint=_permission_hint(permission, known),
            id="cacheapp.E005",
        )
        for token in tokens
        for permission in sorted(token.permissions - known)
    ]
    return found


def _permissions() -> set[str]:
    """Return all permissions of cacheapp and, if they are installed, of downloads."""
    found = set()
    for config in apps.get_app_configs():
        if config.name not in {"cacheapp", DOWNLOADS}:
            continue
        for meta in (model._meta for model in config.get_models()):  # noqa: SLF001 (documented)
            names = [get_permission_codename(it, meta) for it in meta.default_permissions]
            names += [codename for codename, _name in meta.permissions]
            found |= {f"{config.label}.{name}" for name in names}
    return found


def _permission_hint(permission: str, known: set[str]) -> str:
    codename = permission.partition(".")[2]
    if (renamed := f"cacheapp_downloads.{codename}") in known:
        return f"It is now {renamed!r}."
    return f"Expected one of {', '.join(sorted(known))}."


@checks.register(checks.Tags.caches)
def check_downloads_app(**_: Any) -> Messages:
    """E009: report settings of downloads in a project without their app."""
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    if found.download_root is None or apps.is_installed(DOWNLOADS):
        return []
    return [
        checks.Error(
            f"CACHEAPP['DOWNLOAD_ROOT'] is set, but {DOWNLOADS!r} is not in INSTALLED_APPS: there are no "
            "downloads.",
            hint=f"Add {DOWNLOADS!r} to INSTALLED_APPS below 'cacheapp', and run 'manage.py migrate'; "
            "or remove DOWNLOAD_ROOT. Jobs of an earlier release are kept either way.",
            id="cacheapp.E009",
        )
    ]


@checks.register(checks.Tags.database)
def check_left_tables(databases: Sequence[str] | None = None, **_: Any) -> Messages:
    """W017: report tables of downloads that nothing uses: without their app, or of an earlier release."""
    is_installed = apps.is_installed(DOWNLOADS)
    found: Messages = []
    for alias in databases or ():
        connection = connections[alias]
        with connection.cursor() as cursor:
            tables = set(connection.introspection.table_names(cursor))
        if is_installed and _EARLIER_TABLE in tables:
            found.append(_earlier_table(alias))
        elif not is_installed and (left := sorted(tables & _JOB_TABLES)):
            found.append(
                checks.Warning(
                    f"The database {alias!r} has the table {left[0]} and others of downloads, but "
                    f"{DOWNLOADS!r} is not in INSTALLED_APPS. They are kept, and nothing uses them.",
                    hint=f"To use them, add {DOWNLOADS!r} to INSTALLED_APPS and run 'manage.py migrate'. "
                    "To drop them, run 'manage.py migrate cacheapp zero' with it, then 'manage.py migrate' without.",
                    id="cacheapp.W017",
                )
            )
    return found


def _earlier_table(alias: str) -> checks.Warning:
    return checks.Warning(
        f"The database {alias!r} has the table {_EARLIER_TABLE} of an earlier release, which "
        f"{DOWNLOADS!r} does not use: its jobs are not found.",
        hint="Run 'manage.py migrate'. If that was done, a database router kept it from renaming the table: "
        "let the router treat 'cacheapp_downloads' as 'cacheapp', and run 'manage.py migrate --fake "
        "cacheapp_downloads zero', then 'manage.py migrate', each with this database.",
        id="cacheapp.W017",
    )


@checks.register(checks.Tags.security)
def check_own_directories(**_: Any) -> Messages:
    """E007, W015: report a `STATE_DIR` or `DOWNLOAD_ROOT` that is unsafe, or cannot be used."""
    found, mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    if mistakes:
        return []
    state = conf.state_dir()
    messages = _own_directory("STATE_DIR", state, private_directory_problem(state))
    if (root := found.download_root) is not None:
        messages += _own_directory("DOWNLOAD_ROOT", root, replaceable_reason(root))
    return messages


def _own_directory(name: str, directory: Path, unsafe: str | None) -> Messages:
    setting = f"CACHEAPP[{name!r}]"
    if unsafe is None:
        return unwritable_warnings(setting, directory)
    return [checks.Error(f"{setting}: {unsafe}.", hint=UNSAFE_DIRECTORY_HINT, id="cacheapp.E007")]


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


@checks.register(checks.Tags.urls)
def check_pages(**_: Any) -> Messages:
    """W010, W025: report that the pages lack the script that updates them, or a page to sign in."""
    if not getattr(settings, "ROOT_URLCONF", ""):  # a project without views
        return []
    try:
        reverse("cacheapp:index")
    except NoReverseMatch:  # the project uses only the caches
        return []
    return _missing_script() + _missing_login()


def _missing_script() -> Messages:
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


def _missing_login() -> Messages:
    if not apps.is_installed("django.contrib.auth"):
        return []
    try:
        path = urlsplit(resolve_url(settings.LOGIN_URL))
        if not path.netloc:  # else another site signs in
            resolve(path.path)
    except (NoReverseMatch, Resolver404):
        return [
            checks.Warning(
                f"LOGIN_URL is {settings.LOGIN_URL!r}, which the URLconf does not have: a page of cacheapp "
                "redirects a user who is not signed in to it, and the response is 404.",
                hint="Set LOGIN_URL to your page to sign in, for example 'admin:login'.",
                id="cacheapp.W025",
            )
        ]
    return []
