"""What tools see of the caches: each adapter here subscribes to operations; docs/howto/watch.md."""

from cacheapp.backends.core.operation import Operation
from cacheapp.backends.core.operations import subscribe


def start_from_settings() -> None:
    """Start what the setting `CACHEAPP` switches on; mistakes in it are reported by system checks."""
    from django.conf import settings  # noqa: PLC0415 (may not exist on import)

    from cacheapp import conf  # noqa: PLC0415 (the same)
    from cacheapp.telemetry import operation_counts  # noqa: PLC0415 (the same)

    found, mistakes = conf.read(getattr(settings, "CACHEAPP", {}))
    if found.metrics and not mistakes:
        operation_counts.start()


__all__ = ["Operation", "subscribe"]
