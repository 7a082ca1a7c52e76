"""The path converters of cacheapp's URLs.

Registered in a module of their own: that of the URLs is imported again after an import that failed, for
example because an extra is missing, and Django refuses to register a name twice.
"""

from django.urls import register_converter
from django.urls.converters import StringConverter


class AnyText(StringConverter):
    """Match the rest of a URL, with slashes and line breaks, so that the 404 is in JSON."""

    regex = "(?s:.+)"


register_converter(AnyText, "cacheapp_any")
