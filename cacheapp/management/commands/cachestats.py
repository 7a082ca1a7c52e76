"""`manage.py cachestats`: the counters and the size of each shared cache on this machine."""

import contextlib
import json
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.management.base import BaseCommand, CommandError, CommandParser

from cacheapp import clock
from cacheapp.backends.core.shared import SharedCache
from cacheapp.errors import CacheappError
from cacheapp.processes.waiting import pause
from cacheapp.typed_values import seconds

Stats = dict[str, Any]
_RATES = ("hits", "misses", "sets", "deletes", "factory_runs", "evictions")


class Command(BaseCommand):
    """Print the figures of one alias, or of all with a backend of cacheapp."""

    help = (
        "Print the counters of an alias, or of all: hits, misses, evictions and more, added up over "
        "the processes of this machine; for an LMDBCache and a DiskCache also entries and bytes."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "alias", nargs="?", help="a name in CACHES (default: all with counters)"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--watch",
            nargs="?",
            const=1.0,
            type=_interval,
            metavar="SECONDS",
            help="print what happened per second, every so many seconds (default: 1), until Ctrl-C",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the figures of each alias."""
        chosen = [options["alias"]] if options["alias"] else list(settings.CACHES)
        if options["watch"] is not None:
            with contextlib.suppress(KeyboardInterrupt):
                self._watch(chosen, options["watch"], as_json=options["json"])
            return
        shown = {alias: _with_rate(stats) for alias, stats in self._read(chosen).items()}
        if options["json"]:
            self.stdout.write(json.dumps(shown, indent=2))
            return
        for alias, stats in shown.items():
            self.stdout.write(alias)
            width = max(map(len, stats))
            for name, value in stats.items():
                text = _percent(value) if name == "hit_rate" else f"{value:,}"
                self.stdout.write(f"  {name:<{width}}  {text:>14}")

    def _watch(self, chosen: list[str], every_s: float, *, as_json: bool) -> None:
        """Print a line for each alias at each interval, with what changed in it."""
        width = max(len("alias"), *map(len, chosen))
        if not as_json:
            names = "".join(f"{name + '/s':>16}" for name in _RATES)
            self.stdout.write(f"{'alias':<{width}}  hit rate{names}")
        before, at_s = self._read(chosen), clock.monotonic_s()
        while True:
            pause(every_s)
            now, now_s = self._read(chosen), clock.monotonic_s()
            lines = {
                alias: _changes(before[alias], stats, now_s - at_s)
                for alias, stats in now.items()
                if alias in before
            }
            before, at_s = now, now_s
            if as_json:
                self.stdout.write(json.dumps(lines))
            for alias, line in lines.items() if not as_json else ():
                rates = "".join(f"{line[name]:>16,.1f}" for name in _RATES)
                self.stdout.write(f"{alias:<{width}}  {_percent(line['hit_rate']):>8}{rates}")
            self.stdout.flush()

    def _read(self, chosen: list[str]) -> dict[str, Stats]:
        found = {alias: self._stats(alias, chosen) for alias in chosen}
        return {alias: stats for alias, stats in found.items() if stats is not None}

    def _stats(self, alias: str, chosen: list[str]) -> Stats | None:
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
            return dict(cache.stats())
        except CacheappError as exc:
            raise CommandError(f"{alias}: {exc}") from exc


def _interval(text: str) -> float:
    return seconds(float(text))


def _with_rate(stats: Stats) -> Stats:
    """Return the figures with the hit rate first: a fraction, or `None` without reads."""
    reads = stats["hits"] + stats["misses"]
    return {"hit_rate": round(stats["hits"] / reads, 4) if reads else None, **stats}


def _changes(before: Stats, now: Stats, spent_s: float) -> Stats:
    """Return the hit rate of the interval, and what happened per second."""
    changes = {name: now.get(name, 0) - before.get(name, 0) for name in _RATES}
    rate = _with_rate(changes)["hit_rate"]
    return {"hit_rate": rate, **{name: round(n / spent_s, 1) for name, n in changes.items()}}


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"
