"""Gives a file a name that nothing has yet, in one step of the kernel's, where it can.

Python has no name for `renameat2(RENAME_NOREPLACE)`. It is one call where a link and an unlink are
two, and works on file systems without hard links (FAT, exFAT, SMB). NFS and other kernels do not have it.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

_HERE = -100  # AT_FDCWD: relative names are the process's
_NOREPLACE = 1
_UNKNOWN = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def _found() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """Return the C library's function, which musl had none of for long."""
    found = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if found is None:
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    found.restype = ctypes.c_int
    return found  # type: ignore[no-any-return]


_renameat2 = _found()


def rename_new(old: Path, new: Path) -> bool:
    """Rename a file, but never over another; return whether this file system can do that.

    Raise `FileExistsError` where the name is taken, and what else `os.rename` raises.
    """
    if _renameat2 is None:
        return False
    if not _renameat2(_HERE, os.fsencode(old), _HERE, os.fsencode(new), _NOREPLACE):
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), str(old), None, str(new))
