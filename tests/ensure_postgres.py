"""Ensure that the tests have a real PostgreSQL server; install Debian's if possible."""

import os
import shutil
import subprocess
import sys

from tests.postgres import MISSING, find_postgres
from tests.required import required


def main() -> int:
    """Install PostgreSQL if it is missing; print an error if that fails, and fail if it is required."""
    if find_postgres() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "postgresql"]
        subprocess.run(["apt-get", "update"], env=env, check=False, stdout=subprocess.DEVNULL)
        subprocess.run(install, env=env, check=False, stdout=subprocess.DEVNULL)
    if find_postgres() is None:
        print(MISSING, file=sys.stderr)
        return int(required())
    return 0


if __name__ == "__main__":
    sys.exit(main())
