"""Views of Django REST framework that are throttled, and what clients in their own processes request."""

from typing import Any, ClassVar

from django.utils.decorators import method_decorator
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from cacheapp import drf
from cacheapp.ratelimit import ratelimit
from cacheapp.throttle import throttle


class _Anon(drf.AnonRateThrottle):
    THROTTLE_RATES: ClassVar = {"anon": "10/min"}


class _Endless(drf.AnonRateThrottle):
    """Has a window that ends in the year 2033, for tests without a clock of their own."""

    rate = "10/min"

    def parse_rate(self, rate: str) -> tuple[int, float]:
        return super().parse_rate(rate)[0], 1e9


class _Zero(drf.AnonRateThrottle):
    rate = "0/day"


class _Scoped(drf.ScopedRateThrottle):
    THROTTLE_RATES: ClassVar = {"upload": "2/min", "search": "3/min"}


class _View(APIView):  # type: ignore[misc]  # no type hints
    authentication_classes = ()
    permission_classes = ()
    renderer_classes = (JSONRenderer,)

    def get(self, request: Request) -> Response:
        del request
        return Response({})


class PerMinute(_View):
    """Allows ten requests per minute and client."""

    throttle_classes = (_Anon,)


class Endless(_View):
    """Allows ten requests until the year 2033."""

    throttle_classes = (_Endless,)


class Closed(_View):
    """Allows no request."""

    throttle_classes = (_Zero,)


class Scoped(_View):
    """Allows what its scope does."""

    throttle_classes = (_Scoped,)
    throttle_scope: str | None = "upload"


class Books(ViewSet):  # type: ignore[misc]  # no type hints
    """Two actions; each may be decorated where its URL is."""

    authentication_classes = ()
    permission_classes = ()
    renderer_classes = (JSONRenderer,)

    def list(self, request: Request) -> Response:
        """Respond."""
        del request
        return Response({})

    def retrieve(self, request: Request) -> Response:
        """Respond."""
        return self.list(request)


class LimitedBooks(Books):
    """The same, decorated in place."""

    @method_decorator(ratelimit(key="ip", rate="1/m"))
    def list(self, request: Request) -> Response:
        """Respond once a minute, else with 403."""
        return super().list(request)

    @method_decorator(throttle(1, 60))
    def retrieve(self, request: Request) -> Response:
        """Respond once a minute, else with 429."""
        return Books.list(self, request)


def request(_cache: Any, times: int) -> list[int]:
    """Request the view again and again; return the status of each response."""
    view, made = Endless.as_view(), APIRequestFactory()
    return [view(made.get("/")).status_code for _ in range(times)]
