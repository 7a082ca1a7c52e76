"""cacheapp's URLs; a project includes them where it wants them."""

from django.urls import path

from cacheapp.views import cache, index, origin, worker

app_name = "cacheapp"

urlpatterns = [
    path("", index.index, name="index"),
    path("api/", index.index, name="api"),
    path("api/worker", worker.worker, name="worker"),
    path("api/cache/<str:alias>", cache.alias, name="alias"),
    path("api/cache/<str:alias>/<str:key>/incr", cache.incr, name="incr"),
    path("api/cache/<str:alias>/<str:key>/add", cache.add, name="add"),
    path("api/cache/<str:alias>/<str:key>/touch", cache.touch, name="touch"),
    path("api/cache/<str:alias>/<path:key>", cache.key, name="key"),  # slashes: a clear refusal
    path("api/demo/file/<int:number>", origin.file, name="file"),
    path("api/<path:rest>", index.nothing_here, name="nothing"),
]
