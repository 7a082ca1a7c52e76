"""Removes files below a directory without leaving it through a symbolic link.

Each folder is opened relative to the one above it, and never through a link. So a folder that is
replaced by a link, before or during the removal, leads nowhere.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cacheapp.downloads.storage.filenames import is_own_name

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_file(
    directory: Path, name: str, is_wanted: Callable[[os.stat_result], bool] = lambda _: True
) -> bool:
    """Remove a regular file, and its folders that are empty then; return False if it stays.

    It stays if it is missing, is no regular file, would be outside, or `is_wanted` returns False
    for it.
    """
    *folders, last = segments = name.split("/")
    if {"", ".", ".."} & set(segments):
        return False
    with contextlib.ExitStack() as stack:
        try:
            opened = [_open(stack, directory, None, _FOLDER & ~os.O_NOFOLLOW)]
            for folder in folders:
                opened.append(_open(stack, folder, opened[-1], _FOLDER))
            found = os.stat(last, dir_fd=opened[-1], follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode) or not is_wanted(found):
                return False
            os.unlink(last, dir_fd=opened[-1])
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as exc:
            if exc.errno == errno.ELOOP:  # a link instead of a folder
                return False
            raise
        with contextlib.suppress(OSError):  # not empty
            for folder in reversed(folders):
                opened.pop()
                os.rmdir(folder, dir_fd=opened[-1])
    return True


def find_files(directory: Path) -> Iterator[str]:
    """Yield the names of the regular files below a directory, except those of jobs and runs."""
    for root, folders, names, descriptor in os.fwalk(directory, follow_symlinks=False):
        folders[:] = sorted(it for it in folders if not is_own_name(it))
        below = Path(root).relative_to(directory)
        for name in sorted(names):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and not is_own_name(name):
                    yield str(below / name)


def _open(stack: contextlib.ExitStack, path: Path | str, dir_fd: int | None, flags: int) -> int:
    descriptor = os.open(path, flags, dir_fd=dir_fd)
    stack.callback(os.close, descriptor)
    return descriptor
