"""Keep passwords out of Django's debug pages and of the e-mails about errors."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.views.debug import ExceptionReporter

_IN_URL = re.compile(r"(?<=://)[^\s/@'\"<>]+(?=@)")
_HIDDEN = "********"


class PasswordFreeReporter(ExceptionReporter):
    """Django's report, without credentials in URLs and without passwords of the settings' servers.

    The finished text is filtered, because a URL may be in a setting, a variable, or a message.
    """

    def get_traceback_html(self) -> Any:
        """Return the page."""
        return _without_passwords(super().get_traceback_html())

    def get_traceback_text(self) -> Any:
        """Return the same as text."""
        return _without_passwords(super().get_traceback_text())


def _without_passwords(report: str) -> str:
    report = _IN_URL.sub(_HIDDEN, report)
    for password in set(_passwords()):
        report = report.replace(password, _HIDDEN)
    return report


def _passwords() -> Iterator[str]:
    """Yield the passwords of the caches' servers and of the broker, as they are and as in the URL."""
    urls = [config.get("LOCATION") for config in settings.CACHES.values()]
    for url in [*urls, getattr(settings, "CELERY_BROKER_URL", None)]:
        for one in url if isinstance(url, list | tuple) else [url]:
            password = urlsplit(str(one)).password
            if password:
                yield password
                yield unquote(password)
