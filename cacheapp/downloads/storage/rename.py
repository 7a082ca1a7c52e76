"""Renames a file atomically without replacing another, where the kernel supports it.

Python does not expose `renameat2(RENAME_NOREPLACE)`. It is one call instead of a link and an
unlink, and works on file systems without hard links (FAT, exFAT, SMB). NFS and other kernels lack
it.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

_HERE = -100  # AT_FDCWD: relative to the working directory
_NOREPLACE = 1
_UNKNOWN = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def _found() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """Return the function of the C library; older versions of musl lack it."""
    found = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if found is None:
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    found.restype = ctypes.c_int
    return found  # type: ignore[no-any-return]


_renameat2 = _found()


def rename_new(old: Path, new: Path) -> bool:
    """Rename a file without replacing another; return False if the file system cannot do that.

    Raise `FileExistsError` if the name is taken, and otherwise the errors of `os.rename`.
    """
    if _renameat2 is None:
        return False
    if not _renameat2(_HERE, os.fsencode(old), _HERE, os.fsencode(new), _NOREPLACE):
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), str(old), None, str(new))
