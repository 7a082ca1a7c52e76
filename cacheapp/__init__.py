"""Caches that all worker processes share, proof that they are, and downloads that use them."""

import sys

if sys.platform == "win32":
    raise ImportError(
        "cacheapp does not run on Windows: its caches need fork, POSIX file locks and mmap; expected "
        "Linux, for example under WSL 2"
    )
if "t" in getattr(sys, "abiflags", ""):
    raise ImportError(
        f"cacheapp does not run on this free-threaded Python ({sys.version.split()[0]}t): lmdb has no "
        "wheel for it; expected a Python with the global interpreter lock"
    )
