"""A site as it is developed: with django-debug-toolbar, and with Sentry, whose server is `SENTRY_URL`."""

import os

import sentry_sdk
from sentry_sdk.integrations.django import DjangoIntegration

from cacheapp.telemetry.sentry import CacheappIntegration
from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS, MIDDLEWARE

ROOT_URLCONF = "tests.system.traced_urls"
INSTALLED_APPS = [*INSTALLED_APPS, "debug_toolbar"]
MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware", *MIDDLEWARE]
INTERNAL_IPS = ["127.0.0.1"]
DEBUG_TOOLBAR_CONFIG = {"IS_RUNNING_TESTS": False}

sentry_sdk.init(
    dsn=os.environ["SENTRY_URL"],
    traces_sample_rate=1.0,
    integrations=[DjangoIntegration(), CacheappIntegration()],
)
