"""URLs of this deployment: cacheapp, Django's admin, and the sign-in page."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import include, path

from cacheapp.views.sign_in import SignIn, SignOut, limit_attempts


def icon(_request: HttpRequest) -> HttpResponse:
    """Redirect to the icon, which browsers request here for pages without one, such as the admin's."""
    return redirect(static("cacheapp/icon.svg"))


handler400 = "cacheapp.views.error_pages.bad_request"
handler403 = "cacheapp.views.error_pages.permission_denied"
handler404 = "cacheapp.views.error_pages.page_not_found"
handler500 = "cacheapp.views.error_pages.server_error"

urlpatterns = [
    path("favicon.ico", icon),
    path("admin/login/", limit_attempts(admin.site.login)),
    path("admin/", admin.site.urls),
    path("login/", SignIn.as_view(), name="login"),
    path("logout/", SignOut.as_view(), name="logout"),
    path("", include("cacheapp.urls")),
]
