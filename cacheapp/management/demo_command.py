"""`manage.py demo`: show which caches all workers share, by what each of them reads."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from cacheapp.cachecheck.options import progress
from cacheapp.demo.deployment import (
    private_deployment,
    redis_can_be_had,
    unwelcome,
    without_redis,
)
from cacheapp.demo.probe import SharingFinding, backends_of, examine
from cacheapp.demo.report import as_json, print_table
from cacheapp.processes.servers import ServerFailed
from cacheapp.processes.stopping import Stopped, stopping
from cacheapp.processes.workers import AnswerLost, NotReached, Workers

PER_WORKER = 4  # connections: 16 requests at once with 4 workers


class Command(BaseCommand):
    """Probe the workers of a Gunicorn over HTTP and print the verdict on each alias."""

    help = (
        "Compare what all workers of a running Gunicorn, or of a private one, read from each cache "
        "alias. Prints SHARED, BROKEN or DOWN with the figures that prove it. Exit status: 0 if "
        "every alias that should be SHARED is; 1 if one is not; 2 if the server could not be "
        "reached. LocMemCache and DummyCache are expected to be BROKEN; a RedisCache that is DOWN "
        "is excused if REDIS_URL is unset and no redis-server is installed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--url", help="a running server with DEMO on (default: start a private one)"
        )
        parser.add_argument(
            "--workers",
            type=int,
            default=os.environ.get("WEB_CONCURRENCY", "4"),
            help="its number of workers, at least 2 (default: WEB_CONCURRENCY, or 4)",
        )
        parser.add_argument(
            "--alias", action="append", help="probe only this alias; may be repeated"
        )
        parser.add_argument("--json", action="store_true", help="print all observations, as JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Examine the aliases, print the findings, and exit with the status that follows."""
        if options["workers"] < 2:  # noqa: PLR2004 (one worker shares with nobody)
            raise CommandError(
                "--workers: expected at least 2, because one worker shares with none", returncode=2
            )
        show_progress = progress()
        if not options["url"]:
            show_progress(f"starting a server with {options['workers']} workers")
        try:
            with (
                stopping(),
                self._server(options) as url,
                Workers(url, options["workers"], PER_WORKER) as workers,
            ):
                findings = self._examine(workers, options["alias"], show_progress)
                pids = workers.pids
        except (NotReached, AnswerLost, ServerFailed) as exc:
            raise CommandError(str(exc), returncode=2) from exc
        except Stopped as exc:
            raise CommandError(f"stopped by {exc}", returncode=128 + exc.number) from None
        finally:
            show_progress("")
        redis_to_be_had = redis_can_be_had()
        if not redis_to_be_had:
            findings = without_redis(findings)
        if options["json"]:
            self.stdout.write(as_json(findings, pids, url))
        else:
            print_table(findings, pids, url, sys.stdout)
        if mistakes := unwelcome(findings, redis_to_be_had=redis_to_be_had):
            raise CommandError("; ".join(mistakes), returncode=1)

    @contextlib.contextmanager
    def _server(self, options: dict[str, Any]) -> Iterator[str]:
        if options["url"]:
            yield options["url"]
            return
        with private_deployment(options["workers"]) as server:
            try:
                yield server.url
            except NotReached as exc:
                raise NotReached(
                    "\n".join([str(exc), "Gunicorn printed:", server.output()])
                ) from exc

    def _examine(
        self, workers: Workers, chosen: list[str] | None, show_progress: Callable[[str], None]
    ) -> list[SharingFinding]:
        backends = backends_of(workers)
        unknown = set(chosen or []) - set(backends)
        if unknown:
            raise CommandError(
                f"--alias {', '.join(sorted(unknown))}: the server has {', '.join(backends)}",
                returncode=2,
            )
        findings = []
        for alias in chosen or backends:
            show_progress(f"comparing what the workers read from {alias}")
            findings.append(examine(workers, alias, backends[alias]))
        return findings
