"""The ASGI application, for ASGI servers."""

import os

from django.core.asgi import get_asgi_application

from cacheapp.asgi import with_downloads

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = with_downloads(get_asgi_application())
