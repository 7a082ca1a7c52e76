"""Decide whether another user could replace a directory, and create private ones. All code decides here.

The rule is the one of sshd's StrictModes: every directory and symbolic link on the way from `/` belongs
to this user or to root, and no other user may write to a directory: it is not writable by a group
either, unless that is the user's own (`_is_private_group`). A directory with the sticky bit,
such as `/tmp`, may be writable: there, only the owner of an entry can rename or remove it. The walk
starts at `/`. So when an entry is examined, no other user can replace it any more, and what is opened
after the check is what was checked.
"""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from cacheapp.errors import StoreUnavailable

_MAX_LINKS = 40  # as the kernel
_EFFECTIVE = os.access in os.supports_effective_ids  # not on macOS


def create_private(path: Path) -> None:
    """Create the directory, and missing parents, with mode 0700.

    Raises `StoreUnavailable` if `private_directory_problem` has a reason, and otherwise `OSError`.
    """
    # Before anything is created: in a directory of another user, nothing is.
    if reason := _replaceable_reason(path) or _created_reason(path):
        raise StoreUnavailable(f"{reason}; nothing in it was touched")


def private_directory_problem(path: Path) -> str | None:
    """Return why the directory is not private to this user; `None` if it is, or is missing.

    Other users may be able to read it: files in it have modes of their own.
    """
    return replaceable_reason(path) or (_shared_reason(path) if path.exists() else None)


def replaceable_reason(path: Path) -> str | None:
    """Return why another user could replace the directory, or what this user has in it, or `None`.

    If the path does not exist, the parents that exist decide.
    """
    try:
        return _replaceable_reason(path)
    except OSError as exc:
        if exc.errno is None:  # a signal handler's
            raise
        return f"{path}: {exc.strerror}"


def unwritable_reason(path: Path) -> str | None:
    """Return why this user can neither write to the directory nor create it, or `None`."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if os.access(there, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE):
        return None
    user = os.geteuid()
    if there == path:
        return f"user {user} cannot write to {path}"
    return f"user {user} cannot create {path}: {there} is not writable for it"


def denial_reason(path: Path) -> str:
    """Return why this user was denied access to a path: which directory or file is another user's.

    Empty if none is. Otherwise it continues a message.
    """
    user = os.geteuid()
    for entry in [*reversed(path.absolute().parents), path]:
        try:
            found = entry.stat()
        except OSError as exc:
            if exc.errno is None:  # a signal handler's
                raise
            return ""
        needed = os.X_OK if entry != path else os.R_OK | os.W_OK
        if found.st_uid != user and not os.access(entry, needed, effective_ids=_EFFECTIVE):
            return (
                f": {entry} belongs to user {found.st_uid}, and this process runs as user {user}. "
                "The first process that used it ran as that user, such as a Gunicorn master of root "
                f"with `user=`; run: chown -R {user} {entry}"
            )
    return ""


def _replaceable_reason(path: Path) -> str | None:
    for entry, found in _entries_on_the_way(Path.cwd() / path):
        if problem := _entry_problem(found):
            name = str(entry) if entry == path else f"{entry} (on the way to {path})"
            what, mend = problem
            return f"{name} {what}" + (f"; run: {mend} {entry}" if mend else "")
    return None


def _shared_reason(path: Path) -> str | None:
    """Return why a directory that cannot be replaced is not this user's own, or `None`."""
    found, user = path.stat(), os.geteuid()
    if found.st_uid != user:
        return f"{path} belongs to user {found.st_uid}, expected {user}; run: chown {user} {path}"
    if found.st_mode & stat.S_ISVTX and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        return f"{path} is writable by others (mode {mode}), expected 0700; run: chmod go-w {path}"
    return None


def _entry_problem(found: os.stat_result) -> tuple[str, str] | None:
    """Return why another user could replace what is below an entry, and the command that mends it."""
    mode, user = found.st_mode, os.geteuid()
    if not (stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        return "is not a directory", ""
    if found.st_uid not in {user, 0}:
        return (
            f"belongs to user {found.st_uid}, expected {user} or root",
            f"chown -h {user}",
        )
    if not stat.S_ISDIR(mode) or mode & stat.S_ISVTX:
        return None
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_private_group(found.st_gid)):
        writers = "world" if mode & stat.S_IWOTH else "group"
        return f"is {writers}-writable (mode {stat.S_IMODE(mode):04o})", "chmod go-w"
    return None


def _is_private_group(group: int) -> bool:
    """Return True if the group has this user's name and no other member.

    Where each user has such a group, as in Ubuntu and Fedora, users create directories with mode
    0775. Debian's sshd accepts them too. Root has no such umask: its directories have no excuse.
    """
    user = os.geteuid()
    try:
        found, own = grp.getgrgid(group), pwd.getpwuid(user)
    except KeyError:
        return False
    return (
        user != 0
        and (found.gr_name, group) == (own.pw_name, own.pw_gid)
        and set(found.gr_mem) <= {own.pw_name}
        and all(one.pw_uid in {user, 0} for one in pwd.getpwall() if one.pw_gid == group)
    )


def _entries_on_the_way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what the kernel passes when it resolves an absolute path, up to the first missing name."""
    at, names, links = Path("/"), list(path.parts[1:]), 0
    yield at, at.lstat()
    while names:
        name = names.pop(0)
        if name == "..":
            at = at.parent
            continue
        entry = at / name
        try:
            found = entry.lstat()
        except FileNotFoundError as exc:
            if exc.errno is None:  # a signal handler's
                raise
            return
        yield entry, found
        if not stat.S_ISLNK(found.st_mode):
            at = entry
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = entry.readlink()
        if target.is_absolute():
            at = Path("/")
        names[:0] = target.parts[1:] if target.is_absolute() else target.parts


def _created_reason(path: Path) -> str | None:
    """Create the directory unless it exists; return why it is not private, or `None`.

    Invariant: if another process removes it meanwhile, between any two steps, it is created again.
    """
    attempts = 10
    while True:
        try:
            for each in [path, *path.parents][::-1]:
                _create_one(each)
            return _replaceable_reason(path) or _shared_reason(path)
        except (FileExistsError, FileNotFoundError) as exc:
            attempts -= 1
            if not attempts or exc.errno in {errno.EEXIST, None}:  # a file is there, or a handler's
                raise


def _create_one(path: Path) -> None:
    """Create a directory unless it exists; raise `FileExistsError` if a file is there.

    `Path.mkdir(exist_ok=True)` and `Path.exists` would lose what a signal handler raises in them.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return
    except FileNotFoundError as exc:
        if exc.errno is None:
            raise
    try:
        path.mkdir(mode=0o700)
    except FileExistsError as exc:  # perhaps another process was first
        if exc.errno is None or not stat.S_ISDIR(path.stat().st_mode):
            raise
