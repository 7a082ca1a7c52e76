"""`manage.py download`: fetch URLs, a manifest or an S3 prefix; the same command resumes."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from rich.console import Console

from cacheapp import clock
from cacheapp.conf import conf, reader_of
from cacheapp.downloads.engine.transfer_options import Existing
from cacheapp.downloads.http.connections import Urllib3Replaced
from cacheapp.downloads.http.credentials import read_netrc
from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.http.ip_policy import read_networks
from cacheapp.downloads.http.proxies import Proxies
from cacheapp.downloads.http.url_policy import UrlRefused
from cacheapp.downloads.http.webhooks import find_webhook
from cacheapp.downloads.jobs.database_errors import migration_hint
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import new_owner
from cacheapp.downloads.jobs.repository import retry_policy
from cacheapp.downloads.plan import MAX_TITLE_CHARS
from cacheapp.downloads.runners.display import Display
from cacheapp.downloads.runners.foreground import (
    ForegroundRunner,
    JobBusy,
    TerminalOrder,
    claim_job,
)
from cacheapp.downloads.runners.run_control import transfer_limits
from cacheapp.downloads.runners.sync_deletion import plan_deletion
from cacheapp.downloads.runners.units import format_bytes, format_seconds
from cacheapp.downloads.sources.base import Source, SourceRefused, UrlList
from cacheapp.downloads.sources.manifest import Manifest, ManifestFormat
from cacheapp.downloads.sources.name_filter import NameFilter
from cacheapp.downloads.sources.request import DEFAULT_THREADS
from cacheapp.downloads.sources.s3 import S3Source
from cacheapp.downloads.sources.synced_source import require_distinct_names
from cacheapp.downloads.states import FileState, JobState
from cacheapp.downloads.storage.filenames import NameRules
from cacheapp.downloads.storage.sync_index import SyncIndex
from cacheapp.processes.stopping import Stopped, stopping
from cacheapp.typed_values import Reader, byte_rate, line_of_text

MAX_ERRORS = MAX_RENAMED = MAX_DELETED = 100
_FAILED, _REFUSED = 1, 2
_LIMITS: tuple[tuple[str, str, type[int | float], str], ...] = (
    ("parts", "--parts", int, "connections for one large file; 1: never split"),
    ("split_from_bytes", "--split-from-bytes", int, "size from which a file is fetched in parts"),
    ("tries", "--tries", int, "attempts per file without progress"),
    ("connect_s", "--connect-timeout", float, "longest time to connect"),
    ("read_s", "--read-timeout", float, "longest silence on a connection"),
    ("stall_s", "--stall-timeout", float, "longest time without progress"),
    ("stall_bytes", "--stall-bytes", int, "bytes that count as progress"),
    ("max_retry_after_s", "--max-retry-after", float, "longest Retry-After that is waited for"),
)
"""Options that replace a setting: the setting without DOWNLOAD_, the option, its type and help."""
_FILE_FLAGS = {
    "--sync": "fetch only what is missing or has changed since the last --sync, and replace it",
    "--delete": "with --sync: delete files that it has saved and that the source has no more",
    "--delete-all": "with --sync: delete all files of the destination that the source does not have",
    "--fsync": "flush each file to disk, to survive a power cut",
    "--no-digest": "compute and verify no checksum, not even a given one",
    "--verify": "read files that are complete already, and fetch those again whose digest differs",
}


class Command(BaseCommand):
    """Run one job in this process and record it in the project's database."""

    help = (
        "Download SOURCE: one or more http(s) URLs, s3://bucket/prefix, or a manifest: a file, or - "
        "for standard input, of lines `url [checksum] [name]`, or with --base-url of lines as "
        "sha256sum and md5sum print them. Each file is saved completely or not at all. Ctrl-C pauses the "
        "job; the same command resumes it and retries the files that failed. Exit status: 0 if "
        "every file was saved, 1 if one was not, 2 if the job could not start, 128 + the signal "
        "if it was stopped."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        _add_source_arguments(parser)
        _add_file_arguments(parser)
        _add_connection_arguments(parser)
        _add_limit_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the job, print the result, and exit with its status."""
        try:
            order = self._order(options)
            with stopping():
                job, took_s = self._fetch(order, quiet=options["json"])
                deleted = self._delete(order, job, options)
        except (
            SourceRefused,
            JobBusy,
            Urllib3Replaced,
            TransferFailed,
            UrlRefused,
            ValueError,
        ) as exc:
            raise CommandError(str(exc), returncode=_REFUSED) from exc
        except OSError as exc:
            raise CommandError(f"{options['to']}: {exc.strerror}", returncode=_REFUSED) from exc
        except DatabaseError as exc:
            message = f"the database reports an error: {exc}{migration_hint(exc)}"
            raise CommandError(message, returncode=_REFUSED) from exc
        except Stopped as exc:
            message = f"stopped by {exc}; the same command resumes the job"
            raise CommandError(message, returncode=128 + exc.number) from None
        self._print_result(job, took_s, deleted, as_json=options["json"])

    def _order(self, options: dict[str, Any]) -> TerminalOrder:
        settings = conf()
        if not 1 <= options["threads"] <= settings.download_max_threads:
            raise ValueError(f"--threads: expected 1 to {settings.download_max_threads}")
        _check_sync(options)
        existing = options["existing"] or ("replace" if options["sync"] else "fail")
        given = {f"download_{name}": options[name] for name, *_ in _LIMITS if options[name]}
        settings = dataclasses.replace(settings, **given)
        if options["webhook"]:
            find_webhook(options["webhook"], settings.download_webhooks)
        Proxies.from_environment().shown()  # refuses a wrong variable before the job begins
        limits = dataclasses.replace(
            transfer_limits(settings),
            digest=not options["no_digest"],
            fsync=options["fsync"],
            existing=Existing(existing),
            verify=options["verify"],
        )
        names = NameFilter.of(options["include"], options["exclude"])
        source = _source(options, names)
        if options["sync"] and not isinstance(source, S3Source):
            require_distinct_names(source)
        return TerminalOrder(
            source=source,
            names=names,
            sync=options["sync"],
            text=" ".join(options["source"])[:2000],
            directory=options["to"].absolute(),
            threads=options["threads"],
            limits=limits,
            retries=retry_policy(settings),
            networks=read_networks(options["allow"]),
            webhook=options["webhook"],
            portable_names=options["portable_names"],
            limit_rate=options["limit_rate"],
            parts=options["parts"],
            title=options["title"],
            logins={} if options["no_netrc"] else read_netrc(),
        )

    def _fetch(self, order: TerminalOrder, *, quiet: bool) -> tuple[DownloadJob, float]:
        began_s = clock.monotonic_s()
        owner = new_owner()
        job, resumed = claim_job(order, owner)
        console = Console(file=sys.stderr, quiet=quiet)
        if proxies := Proxies.from_environment().shown():
            note = f"Through the proxy {proxies}: the addresses of hosts cannot be checked"
            console.print(note, markup=False, soft_wrap=True)
        if resumed:
            done = job.files.filter(state=FileState.SUCCEEDED).count()
            console.print(f"Resuming job {job.id}: {done} files are complete")
        with Display(console) as display:
            job = ForegroundRunner(order, job, owner).run(display.show)
            if resumed and order.sync and job.state in {JobState.SUCCEEDED, JobState.FAILED}:
                # It was listed by an earlier command: what has changed since is fetched by a new job.
                job, _ = claim_job(order, owner, anew=True)
                job = ForegroundRunner(order, job, owner).run(display.show)
        return job, clock.monotonic_s() - began_s

    def _delete(
        self, order: TerminalOrder, job: DownloadJob, options: dict[str, Any]
    ) -> list[str] | None:
        """Delete what the source has no more; return the names, `None` if that was not requested."""
        if not (options["delete"] or options["delete_all"]):
            return None
        if job.state != JobState.SUCCEEDED:
            self.stderr.write("nothing is deleted: not all files were fetched")
            return []
        index = SyncIndex(order.directory, order.source.scope)
        index.load()
        try:
            unknown = options["delete_all"]
            deletion = plan_deletion(order.source, index, order.names, unknown=unknown)
        except SourceRefused as exc:
            message = f"the files are up to date; nothing is deleted: {exc}"
            raise CommandError(message, returncode=_FAILED) from exc
        for name in deletion.names:
            self.stderr.write(f"deleting {_shown(name)}")
        return deletion.carry_out()

    def _print_result(
        self, job: DownloadJob, took_s: float, deleted: list[str] | None, *, as_json: bool
    ) -> None:
        failed = job.files.filter(state=FileState.FAILED).order_by("position")
        errors = list(failed.values("url", "name", "error", "tries")[:MAX_ERRORS])
        changed = job.files.exclude(original_name="").order_by("position")
        renamed = list(changed.values("url", "name", "original_name")[:MAX_RENAMED])
        if as_json:
            found = {
                "id": str(job.id),
                "state": job.state,
                "error": job.error,
                "directory": job.destination,
                "files_total": job.files_total,
                "files_done": job.files_done,
                "files_failed": job.files_failed,
                "bytes_done": job.bytes_done,
                "seconds": round(took_s, 3),
                "errors": errors,
                "files_unchanged": job.files_unchanged,
                "files_deleted": None if deleted is None else len(deleted),
                "deleted": (deleted or [])[:MAX_DELETED],
                "files_renamed": job.files_renamed,
                "renamed": renamed,
            }
            self.stdout.write(json.dumps(found, indent=2))
        else:
            for error in errors:
                self.stderr.write(f"{error['url']}: {error['error']}")
            for it in renamed:
                self.stderr.write(f"{it['original_name']!r} is saved as {it['name']!r}")
            if job.files_renamed > len(renamed):
                self.stderr.write(f"and {job.files_renamed - len(renamed)} more renamed files")
            self.stdout.write(_last_line(job, took_s, deleted))
        if job.state != JobState.SUCCEEDED:
            raise CommandError(job.error or job.state, returncode=_FAILED)


def _add_source_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "source", nargs="+", help="URLs, a manifest file or -, or s3://bucket/prefix"
    )
    parser.add_argument(
        "--base-url",
        default="",
        metavar="URL",
        help="folder of the files in a manifest that has checksums and names alone",
    )
    parser.add_argument(
        "--portable-names",
        action="store_true",
        help="change names of files that are not valid on all systems (Windows, case folding)",
    )
    for name in ("include", "exclude"):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="GLOB",
            help=f"{name} the objects of a prefix that match; * also matches /",
        )


def _add_file_arguments(parser: CommandParser) -> None:
    parser.add_argument("--threads", type=int, default=DEFAULT_THREADS)
    parser.add_argument(
        "--title",
        type=_typed(str, line_of_text(MAX_TITLE_CHARS)),
        default="",
        metavar="TEXT",
        help="name of the job in the list of downloads (default: its source)",
    )
    parser.add_argument("--to", type=Path, default=Path(), metavar="DIR", help="default: here")
    parser.add_argument(
        "--existing",
        choices=[choice.value for choice in Existing],
        help="what to do with a file that already exists (default: fail; with --sync: replace)",
    )
    _add_flags(parser, _FILE_FLAGS)


def _add_connection_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NETWORK",
        help="allow connections to this private network, such as 127.0.0.0/8",
    )
    _add_flags(parser, {"--no-netrc": "send no passwords from ~/.netrc or $NETRC"})
    parser.add_argument(
        "--webhook",
        default="",
        metavar="URL",
        help="notify this receiver, of DOWNLOAD_WEBHOOKS, when the job has ended",
    )
    parser.add_argument(
        "--endpoint", metavar="URL", help="endpoint of an S3 service other than Amazon's"
    )
    parser.add_argument("--region", help="region of the bucket")
    _add_flags(parser, {"--anonymous": "do not sign requests to S3"})


def _add_limit_arguments(parser: CommandParser) -> None:
    for name, flag, kind, text in _LIMITS:
        setting = f"DOWNLOAD_{name.upper()}"
        parser.add_argument(
            *(flag,),
            dest=name,
            type=_typed(kind, reader_of(setting)),
            metavar="N" if kind is int else "SECONDS",
            help=f"{text} (default: {setting})",
        )
    parser.add_argument(
        "--limit-rate",
        type=_typed(str, byte_rate),
        metavar="RATE",
        help="limit of bytes per second of this job, such as 500k or 2M (default: no limit)",
    )


def _add_flags(parser: CommandParser, flags: Mapping[str, str]) -> None:
    """Add options that are either given or not: their names and help."""
    for flag, text in flags.items():
        parser.add_argument(flag, action="store_true", help=text)


def _typed(kind: type[int | float | str], read: Reader) -> Callable[[str], Any]:
    """Return a function for `argparse` that reads a value as a setting is read."""

    def parse(text: str) -> Any:
        try:
            value: Any = kind(text)
        except ValueError:
            value = text  # the setting's reader says what it expects
        try:
            return read(value)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"is {text!r}; expected {exc}") from exc

    return parse


def _shown(name: str) -> str:
    """Return a name that may not be valid UTF-8, for people."""
    return name.encode(errors="replace").decode()


def _last_line(job: DownloadJob, took_s: float, deleted: list[str] | None) -> str:
    """Return what a person wants to know at the end."""
    left = [f"{job.files_failed} failed"] if job.files_failed else []
    left += [f"{job.files_unchanged} unchanged"] if job.files_unchanged else []
    left += [f"{len(deleted)} deleted"] if deleted is not None else []
    if job.state not in {JobState.SUCCEEDED, JobState.FAILED}:
        left.append(job.state)
    shown = (
        f"Downloaded {job.files_done} of {job.files_total} files, {format_bytes(job.bytes_done)}"
    )
    return f"{', '.join([shown, *left])}, in {format_seconds(took_s)}, to {job.destination}"


def _check_sync(options: dict[str, Any]) -> None:
    for flag in ("delete", "delete_all"):
        if options[flag] and not options["sync"]:
            raise ValueError(f"--{flag.replace('_', '-')}: expected --sync too")
    if options["sync"] and options["portable_names"]:
        raise ValueError("--sync: not with --portable-names, which may number names differently")
    if options["sync"] and options["existing"] not in {None, Existing.REPLACE}:
        raise ValueError(f"--existing {options['existing']}: --sync replaces what has changed")


def _source(options: dict[str, Any], names: NameFilter) -> Source:
    texts = options["source"]
    rules = NameRules(portable=options["portable_names"])
    is_manifest = len(texts) == 1 and "://" not in texts[0]
    if options["base_url"] and not is_manifest:
        raise SourceRefused("--base-url: expected a manifest as the source")
    if names.identity and not texts[0].startswith("s3://"):
        raise SourceRefused("--include, --exclude: expected s3://bucket/prefix as the source")
    if texts[0].startswith("s3://"):
        if len(texts) > 1:
            raise SourceRefused("expected a single s3://bucket/prefix")
        place = {name: options[name] for name in ("endpoint", "region", "anonymous")}
        return S3Source(texts[0], **place, rules=rules, names=names)
    if is_manifest:
        form = ManifestFormat(rules, options["base_url"])
        return Manifest(sys.stdin.buffer.read() if texts[0] == "-" else Path(texts[0]), form)
    return UrlList(texts, rules)
