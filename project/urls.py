"""URLs of this deployment: all of them are cacheapp's."""

from django.urls import include, path

urlpatterns = [path("", include("cacheapp.urls"))]
