"""The WSGI application of the lab's site."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
