"""`manage.py downloads`: list jobs, run them outside Gunicorn, and remove old ones."""

import os
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from cacheapp.conf import conf
from cacheapp.downloads import release_downloads, start_downloads
from cacheapp.downloads.jobs import audit, retention
from cacheapp.downloads.jobs.actors import terminal_actor
from cacheapp.downloads.jobs.database_errors import migration_hint
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.processes.stopping import Stopped, stopping

_REFUSED = 2
_LISTED = 50


class Command(BaseCommand):
    """List, run or prune download jobs."""

    help = (
        "Without an option: list the newest jobs. --work: run jobs in this process, as a Gunicorn "
        "worker does, until SIGTERM or Ctrl-C; its jobs are then released for other processes. "
        "--prune: remove jobs that ended long ago, and partial files without a job."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--work", action="store_true", help="run jobs that no process runs")
        what.add_argument("--prune", action="store_true", help="remove old jobs and partial files")
        parser.add_argument(
            "--older-than",
            type=float,
            metavar="SECONDS",
            help="minimum age for --prune (default: DOWNLOAD_RETENTION_S)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run one of the three; exit with status 2 if it cannot start."""
        try:
            if options["work"]:
                self._work()
            elif options["prune"]:
                self._prune(options["older_than"])
            else:
                self._list()
        except DatabaseError as exc:
            message = f"the database reports an error: {exc}{migration_hint(exc)}"
            raise CommandError(message, returncode=_REFUSED) from exc

    def _work(self) -> None:
        if conf().download_root is None:
            message = "CACHEAPP['DOWNLOAD_ROOT'] is not set; expected the directory for downloads"
            raise CommandError(message, returncode=_REFUSED)
        DownloadJob.objects.exists()  # report a missing database at once
        with stopping():
            try:
                start_downloads(forced=True)
                self.stdout.write(f"process {os.getpid()} runs downloads")
                self.stdout.flush()
                threading.Event().wait()
            except Stopped as exc:
                release_downloads(os.getpid())
                self.stdout.write(f"stopped by {exc}; its jobs are released")

    def _prune(self, older_than_s: float | None) -> None:
        seconds = conf().download_retention_s if older_than_s is None else older_than_s
        if seconds is None or seconds < 0:
            message = "DOWNLOAD_RETENTION_S is None; expected --older-than SECONDS, 0 or more"
            raise CommandError(message, returncode=_REFUSED)
        pruned = retention.prune(seconds, terminal_actor())
        audit.prune()
        self.stdout.write(
            f"removed {pruned.jobs} finished jobs and the partial files of {pruned.partials} runs"
        )

    def _list(self) -> None:
        jobs = DownloadJob.objects.order_by("-created_at", "id")[:_LISTED]
        for job in jobs:
            owner = f"process {job.owner_pid}" if job.owner is not None else "no process"
            by = f"  by {owner}, adopted {job.adoptions} times" if job.finished_at is None else ""
            self.stdout.write(
                f"{job.created_at:%Y-%m-%d %H:%M:%S}  {job.id}  {job.state:9}  "
                f"{job.files_done}/{job.files_total} files  {job.bytes_done} bytes{by}"
                + (f"  {job.error}" if job.error else "")
            )
