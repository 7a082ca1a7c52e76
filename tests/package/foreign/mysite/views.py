"""Views as other people write them: each uses the cache through another package."""

import os
import time

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_page
from django_ratelimit.decorators import ratelimit
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import AnonRateThrottle
from rest_framework.views import APIView


def hit(request: HttpRequest) -> HttpResponse:
    """Count this request."""
    cache.add("hits", 0, timeout=None)
    return JsonResponse({"hits": cache.incr("hits"), "worker": os.getpid()})


@ratelimit(key="ip", rate="10/h")
def ratelimited(request: HttpRequest) -> HttpResponse:
    """Admit ten requests an hour (django-ratelimit)."""
    return JsonResponse({"worker": os.getpid()})


class Throttled(APIView):  # type: ignore[misc]  # not installed where this is checked
    """Admits ten requests an hour (Django REST framework)."""

    throttle_classes = (AnonRateThrottle,)
    authentication_classes = ()

    def get(self, request: Request) -> Response:
        """Answer a request that was admitted."""
        del request
        return Response({"worker": os.getpid()})


def remember(request: HttpRequest) -> HttpResponse:
    """Put something into the session."""
    request.session["name"] = "Ada"
    return JsonResponse({"worker": os.getpid()})


def recall(request: HttpRequest) -> HttpResponse:
    """Read it back."""
    return JsonResponse({"name": request.session.get("name"), "worker": os.getpid()})


@cache_page(600)
def page(request: HttpRequest) -> HttpResponse:
    """Return a page that names its maker, which the cache should keep."""
    return HttpResponse(f"{os.getpid()} {time.time_ns()}")


def fragment(request: HttpRequest) -> HttpResponse:
    """Return a page whose middle is cached."""
    return render(request, "fragment.html", {"made": f"{os.getpid()} {time.time_ns()}"})
