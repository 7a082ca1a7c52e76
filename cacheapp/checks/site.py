"""Checks of the CACHEAPP setting: its own mistakes, and what does not go together."""

import importlib.util
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_permission_codename
from django.core import checks
from django.urls import NoReverseMatch, reverse

from cacheapp import conf

Messages = list[checks.CheckMessage]


@checks.register(checks.Tags.caches)
def check_setting(**_: Any) -> Messages:
    """E001: report each mistake in the CACHEAPP setting."""
    _found, mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    hint = "docs/reference/settings.md lists them."
    return [checks.Error(mistake, hint=hint, id="cacheapp.E001") for mistake in mistakes]


@checks.register(checks.Tags.security)
def check_tokens(**_: Any) -> Messages:
    """E005: report permissions of tokens that no view asks for."""
    found = [model._meta for model in apps.get_app_config("cacheapp").get_models()]  # noqa: SLF001 (documented)
    codenames = [
        get_permission_codename(it, meta) for meta in found for it in meta.default_permissions
    ]
    codenames += [codename for meta in found for codename, _name in meta.permissions]
    known = {f"cacheapp.{codename}" for codename in codenames}
    return [
        checks.Error(
            f"CACHEAPP['API_TOKENS'][{token.name!r}] has the permission {permission!r}, which does "
            "not exist.",
            hint=f"There are {', '.join(sorted(known))}.",
            id="cacheapp.E005",
        )
        for token in conf.read(getattr(settings, "CACHEAPP", {}))[0].api_tokens
        for permission in sorted(token.permissions - known)
    ]


@checks.register(checks.Tags.caches)
def check_runner(**_: Any) -> Messages:
    """E006: report that jobs are to be run by a Celery that is not there."""
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    if found.download_runner != "celery" or importlib.util.find_spec("celery") is not None:
        return []
    return [
        checks.Error(
            "CACHEAPP['DOWNLOAD_RUNNER'] is 'celery', which is not installed.",
            hint="pip install cacheapp[celery]",
            id="cacheapp.E006",
        )
    ]


@checks.register(checks.Tags.caches)
def check_streams(**_: Any) -> Messages:
    """W009: report more streams of events than a worker has threads for."""
    found, _mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    if found.threads is None or found.download_streams < found.threads:
        return []
    return [
        checks.Warning(
            f"CACHEAPP['DOWNLOAD_STREAMS'] is {found.download_streams}, and a worker has "
            f"{found.threads} threads: it has at most {found.threads - 1}, so that one is left.",
            hint=f"Set it below {found.threads}.",
            id="cacheapp.W009",
        )
    ]


@checks.register(checks.Tags.urls)
def check_pages(**_: Any) -> Messages:
    """W010: report pages that are served without the script that keeps them moving."""
    try:
        reverse("cacheapp:index")
    except NoReverseMatch:  # the caches alone are used
        return []
    if apps.is_installed("django_htmx"):
        return []
    return [
        checks.Warning(
            "The pages of cacheapp are served, and 'django_htmx' is not in INSTALLED_APPS: their "
            "script is missing, so they show what was so when they were loaded.",
            hint="Add 'django_htmx' to INSTALLED_APPS; it comes with cacheapp.",
            id="cacheapp.W010",
        )
    ]
