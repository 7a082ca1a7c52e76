"""What the benchmarks share: origins in separate processes, and a directory for files."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import certifi
import trustme

from benchmarks.measuring import ROOT

MEMORY = Path("/dev/shm")  # noqa: S108 (a file system, not a name in it)


@contextlib.contextmanager
def bulk_origins() -> Iterator[tuple[str, str, str]]:
    """Yield the addresses of an origin without TLS and one with, and the CA file to trust."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        ca = trustme.CA()
        # Together with the system's authorities: loading them is part of the cost of TLS.
        (place / "ca.pem").write_bytes(Path(certifi.where()).read_bytes() + ca.cert_pem.bytes())
        certificate = str(place / "server.pem")
        ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        with _origin() as plain, _origin(certificate) as secure:
            yield plain, secure, str(place / "ca.pem")


@contextlib.contextmanager
def _origin(*words: str) -> Iterator[str]:
    """Yield the address of an origin; it ends with its standard input."""
    command = [sys.executable, "-m", "benchmarks.downloads._bulk_origin", *words]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None  # noqa: S101 (for the type checker, as below)
        assert process.stdout is not None  # noqa: S101
        yield process.stdout.readline().strip()
        process.stdin.close()


def files_directory() -> str | None:
    """Return the directory for files: BENCH_DIR, or memory; `None` for a temporary one."""
    return os.environ.get("BENCH_DIR") or (str(MEMORY) if MEMORY.is_dir() else None)
