"""cacheapp's URLs; a project includes them where it wants them."""

from django.urls import URLPattern

app_name = "cacheapp"

urlpatterns: list[URLPattern] = []
