"""Checks of the user that Gunicorn gives its workers: `user=` with a master that root runs.

A master that uses a cache, for example at import with `preload_app`, creates the directories of that
cache as root. They are private, so the workers cannot use them.
"""

import argparse
import ast
import contextlib
import itertools
import logging
import os
import pwd
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks

from cacheapp import conf
from cacheapp.checks.caches import cache_directories

logger = logging.getLogger(__name__)


@checks.register(checks.Tags.caches)
def check_user_of_workers(**_: Any) -> list[checks.CheckMessage]:
    """W016: report directories of another user than the one that Gunicorn's configuration names."""
    user = configured_user()
    uid = None if user is None else _uid_of(user)
    if uid is None:
        return []
    return [
        checks.Warning(
            f"{name}: {path} belongs to user {owner}, but Gunicorn is configured to run the workers "
            f"as {user!r} (user {uid}): they cannot use it.",
            hint=f"Run: chown -R {uid} {path}. Start Gunicorn as this user, or use no cache "
            "in the master, which root runs: not at import with preload_app, and not in its hooks.",
            id="cacheapp.W016",
        )
        for name, directory in _directories()
        for path, owner in _owned(directory)
        if owner != uid
    ]


def log_foreign_directories() -> None:
    """Log an error for each directory that another user owns, in a worker that just started.

    By then Gunicorn has changed the user, wherever that was configured.
    """
    uid = os.geteuid()
    for name, directory in _directories():
        for path, owner in _owned(directory):
            if owner != uid:
                logger.error(
                    "%s: %s belongs to user %d, but this worker runs as user %d and cannot use it; "
                    "run: chown -R %d %s",
                    *(name, path, owner, uid, uid, path),
                    extra={"event": "directory_of_another_user"},
                )


def configured_user() -> str | None:
    """Return `user` of GUNICORN_CMD_ARGS or of the configuration file, if it is a constant there.

    The file is not executed. `-u` of Gunicorn's own command line is not known here:
    `log_foreign_directories` sees what came of it.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("-u", "--user")
    parser.add_argument("-c", "--config", default="gunicorn.conf.py")
    with contextlib.suppress(argparse.ArgumentError, ValueError):  # Gunicorn reports them
        found, _ = parser.parse_known_args(shlex.split(os.environ.get("GUNICORN_CMD_ARGS", "")))
        return found.user or _user_in_file(Path(found.config.removeprefix("file:")))
    return None


def _user_in_file(path: Path) -> str | None:
    user = None
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        for statement in ast.parse(path.read_bytes()).body:
            user = _assigned_user(statement) or user
    return user


def _assigned_user(statement: ast.stmt) -> str | None:
    match statement:
        case ast.Assign([ast.Name("user")], ast.Constant(str() | int() as value)):
            return str(value)
    return None


def _uid_of(user: str) -> int | None:
    """Return the number of a user; `None` if there is none, which Gunicorn itself reports."""
    with contextlib.suppress(KeyError):
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    return None


def _directories() -> Iterator[tuple[str, Path]]:
    for config, directory in cache_directories():
        yield f"CACHES[{config.alias!r}]", directory
    state = conf.read(getattr(settings, "CACHEAPP", {}))[0].state_dir
    if state is not None:
        yield "CACHEAPP['STATE_DIR']", state


def _owned(directory: Path) -> Iterator[tuple[Path, int]]:
    """Yield the directory, or the first one below it of another owner, with its owner."""
    with contextlib.suppress(OSError):
        owner = directory.stat().st_uid
        yield directory, owner
        below = ((entry, entry.lstat().st_uid) for entry in sorted(directory.iterdir()))
        yield from itertools.islice((each for each in below if each[1] != owner), 1)
