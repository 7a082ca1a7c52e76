"""`manage.py cachestats`: the counters and the size of each shared cache on this machine."""

import json
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.management.base import BaseCommand, CommandError, CommandParser

from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import CacheappError


class Command(BaseCommand):
    """Print the figures of one alias, or of all with a backend of cacheapp."""

    help = (
        "Print the counters of an alias, or of all: hits, misses, evictions and more, added up over "
        "the processes of this machine; for an LMDBCache also its entries, bytes and readers."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "alias", nargs="?", help="a name in CACHES (default: all with counters)"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the figures of each alias."""
        chosen = [options["alias"]] if options["alias"] else list(settings.CACHES)
        found = {alias: self._stats(alias, chosen) for alias in chosen}
        shown = {alias: stats for alias, stats in found.items() if stats is not None}
        if options["json"]:
            self.stdout.write(json.dumps(shown, indent=2))
            return
        for alias, stats in shown.items():
            self.stdout.write(alias)
            width = max(map(len, stats))
            for name, value in stats.items():
                self.stdout.write(f"  {name:<{width}}  {value:>14,}")

    def _stats(self, alias: str, chosen: list[str]) -> dict[str, int] | None:
        if alias not in settings.CACHES:
            raise CommandError(f"{alias}: CACHES has {', '.join(settings.CACHES)}")
        cache = caches[alias]
        if not isinstance(cache, SharedCache):
            if len(chosen) == 1:
                raise CommandError(
                    f"{alias} is a {type(cache).__qualname__}, which has no counters; expected a "
                    "backend of cacheapp.backends"
                )
            return None
        try:
            return cache.stats()
        except CacheappError as exc:
            raise CommandError(f"{alias}: {exc}") from exc
