"""Make sure that the tests have a real PostgreSQL server: install Debian's where that is possible."""

import os
import shutil
import subprocess
import sys

from tests.postgres import find_postgres


def main() -> int:
    """Return 0 when there is a server; else say what was tried."""
    if find_postgres() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "postgresql"]
        subprocess.run(["apt-get", "update"], env=env, check=False, stdout=subprocess.DEVNULL)
        subprocess.run(install, env=env, check=False, stdout=subprocess.DEVNULL)
    if find_postgres() is None:
        print(
            "The tests need a real PostgreSQL server, and none could be had: there is no initdb on "
            "PATH nor in /usr/lib/postgresql, and apt-get did not install it (that needs root). "
            "Install postgresql and run this again.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
