"""The links between the pages, for each user only those that it may open, and the way back to one."""

from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from cacheapp.conf import conf
from cacheapp.views.local_access import SAFE_METHODS, is_local

_PAGES = (
    ("index", "Caches", "cacheapp.use_demo"),
    ("machines_page", "Machines", "cacheapp.use_demo"),
    ("lab_page", "Lab", "cacheapp.run_lab"),
    ("check_page", "Check", "cacheapp.run_check"),
    ("downloads_page", "Downloads", "cacheapp_downloads.view_downloadjob"),
    ("stats_page", "Stats", "cacheapp.view_stats"),
)


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the links to the pages that the user may open: `url`, `title`, `is_current`."""
    home = reverse("cacheapp:index")
    items = []
    for name, title, permission in _installed_pages():
        url = reverse(f"cacheapp:{name}")
        is_current = request.path == url if url == home else request.path.startswith(url)
        if may_open(request, permission):
            items.append({"url": url, "title": title, "is_current": is_current})
    return items


def _installed_pages() -> list[tuple[str, str, str]]:
    """Return the pages that have a URL: that of downloads only if their app is installed."""
    has_downloads = apps.is_installed("cacheapp.downloads")
    return [page for page in _PAGES if has_downloads or page[0] != "downloads_page"]


def first_allowed_page(request: HttpRequest, wanted: str) -> str:
    """Return the wanted URL; if it is a page that the user may not open, the first one it may."""
    pages = {reverse(f"cacheapp:{name}"): permission for name, _, permission in _installed_pages()}
    permission = pages.get(wanted)
    if permission is None or may_open(request, permission):
        return wanted
    return next((url for url, needed in pages.items() if may_open(request, needed)), wanted)


def has_users() -> bool:
    """Return whether people can sign in to this project."""
    return apps.is_installed("django.contrib.auth")


def page_before(request: HttpRequest) -> str:
    """Return the page of this site whose form was sent, or nothing."""
    before = request.headers.get("Referer", "")
    if request.method in SAFE_METHODS or not before:
        return ""
    try:
        is_own = url_has_allowed_host_and_scheme(before, {request.get_host()})
    except DisallowedHost:  # which may be what this page is about
        return ""
    found = urlsplit(before)._replace(scheme="", netloc="", fragment="").geturl()
    return found if is_own and not found.startswith("//") else ""


def wanted_page(request: HttpRequest) -> str:
    """Return the page to show after signing in: a browser cannot send the form of a button again."""
    if request.method in SAFE_METHODS:
        return request.get_full_path()
    return page_before(request) or reverse("cacheapp:index")


def may_open(request: HttpRequest, permission: str) -> bool:
    """Return whether the user may open a page that requires the permission, as `access` decides it.

    It also answers for requests that `access` has not seen, such as those of the sign-in page.
    """
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated and user.has_perm(permission):
        return True
    return conf().demo and is_local(request)
