"""URLs of this deployment: cacheapp, Django's admin, and the sign-in page."""

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path

from cacheapp.views.sign_in import SignIn, limit_attempts

urlpatterns = [
    path("admin/login/", limit_attempts(admin.site.login)),
    path("admin/", admin.site.urls),
    path("login/", SignIn.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("", include("cacheapp.urls")),
]
