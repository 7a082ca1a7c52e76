"""Ensure that the browser tests have a Chromium; install Debian's if possible."""

import os
import shutil
import subprocess
import sys

from tests.required import required

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
MISSING = (
    "The browser tests need Chromium, and none could be had: there is no "
    f"{', '.join(NAMES[:-1])} or {NAMES[-1]} on PATH, and apt-get did not install one (that needs "
    "root). Install chromium and run this again."
)


def find_chromium() -> str | None:
    """Return the path of a Chromium on PATH."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    """Install Chromium if it is missing; print an error if that fails, and fail if it is required."""
    if find_chromium() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "--yes", "--no-install-recommends"]
        subprocess.run(["apt-get", "update"], env=env, check=False, stdout=subprocess.DEVNULL)
        # Fonts, because without any the widths of a page cannot be tested.
        wanted = ["chromium", "fonts-dejavu-core"]
        subprocess.run([*install, *wanted], env=env, check=False, stdout=subprocess.DEVNULL)
    if find_chromium() is None:
        print(MISSING, file=sys.stderr)
        return int(required())
    return 0


if __name__ == "__main__":
    sys.exit(main())
