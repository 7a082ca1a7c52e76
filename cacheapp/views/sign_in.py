"""Where pages send whoever is not known; for projects with users, so no other view imports it."""

from typing import Any

from django.contrib.auth.views import LoginView
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.views.pages import strict


class SignIn(LoginView):
    """The page where people sign in."""

    template_name = "cacheapp/login.html"
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer under the strict policy."""
        return strict(super().dispatch(request, *args, **kwargs))
