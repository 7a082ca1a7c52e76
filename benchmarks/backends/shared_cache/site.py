"""The page that Gunicorn serves: 20 gets and 2 sets, and what Django does around them."""

import os
import random

from django.core.cache import caches
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.backends.shared_cache.calls import SMALL

_KEYS = [f"page-{n}" for n in range(1000)]
_GETS, _SETS = 20, 2
_WRITTEN = "own-" if os.environ.get("BENCHMARK_WRITES_APART") else ""


def page(_request: HttpRequest) -> HttpResponse:
    """Get 20 entries, setting those that are missing, and set 2, of a thousand (or of others)."""
    cache = caches[os.environ["BENCHMARK_ALIAS"]]
    keys = random.choices(_KEYS, k=_GETS + _SETS)
    for key in keys[:_GETS]:
        if cache.get(key) is None:
            cache.set(key, SMALL)
    for key in keys[_GETS:]:
        cache.set(_WRITTEN + key, SMALL)
    return HttpResponse(b"<p>A page.</p>", headers={"Worker": str(os.getpid())})


urlpatterns = [path("", page)]
application = get_wsgi_application()
