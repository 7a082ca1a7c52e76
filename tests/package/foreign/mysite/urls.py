"""One view for each use of the cache."""

from django.contrib.auth.views import LoginView
from django.urls import path

from mysite import views

urlpatterns = [
    path("hit", views.hit),
    path("ratelimited", views.ratelimited),
    path("throttled", views.Throttled.as_view()),
    path("login", LoginView.as_view(template_name="login.html")),
    path("remember", views.remember),
    path("recall", views.recall),
    path("page", views.page),
    path("fragment", views.fragment),
]
