"""A small site such as people have, all of whose cached things use the alias `SITE_ALIAS`."""

import os

from project.settings import *  # noqa: F403

SITE_ALIAS = os.environ["SITE_ALIAS"]
ROOT_URLCONF = "tests.system.site_urls"
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
SESSION_CACHE_ALIAS = SITE_ALIAS
ALLOWED_HOSTS = ["127.0.0.1"]
SESSION_COOKIE_SECURE = False
SECURE_SSL_REDIRECT = False
