"""System checks: everything wrong with the settings, found at once by `manage.py check`."""

from typing import Any

from django.conf import settings
from django.core import checks

from cacheapp import conf


@checks.register(checks.Tags.caches)
def check_setting(**_: Any) -> list[checks.CheckMessage]:
    """Report each mistake in the CACHEAPP setting."""
    _found, mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    return [
        checks.Error(mistake, hint="See the table of settings in README.", id="cacheapp.E001")
        for mistake in mistakes
    ]
