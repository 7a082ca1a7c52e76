"""`/livez`, `/readyz` and `/metrics`, for projects that do not include `cacheapp.urls`, which has them too."""

from django.urls import path

from cacheapp.views import health, metrics

urlpatterns = [
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
]
