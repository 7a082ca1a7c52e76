"""A small example site whose sessions, pages and limits all use the alias `SITE_ALIAS`."""

import os

from project.settings import *  # noqa: F403
from project.settings import MIDDLEWARE

SITE_ALIAS = os.environ.get("SITE_ALIAS", "default")
ROOT_URLCONF = "tests.system.site_urls"
MIDDLEWARE = ["tests.system.site_urls.say_who", *MIDDLEWARE]
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
SESSION_CACHE_ALIAS = SITE_ALIAS
SESSION_COOKIE_SECURE = False
