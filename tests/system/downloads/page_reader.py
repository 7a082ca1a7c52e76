"""The commands in the `sh` blocks of the docs, and a reader who types them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.system.downloads.parts import ROOT, Site

PAGES = [ROOT / "docs/howto/downloads.md", ROOT / "docs/reference/http-api.md"]
SECRET = "secret-of-nightly"  # noqa: S105 (of the tests)
ELSEWHERE = {"DOWNLOAD_RUNNER=celery": "tests/system/downloads/test_celery.py"}


def blocks(page: Path) -> list[str]:
    """Return the `sh` blocks of a page, but those that other tests run."""
    found = re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block for block in found if not block.startswith(tuple(ELSEWHERE))]


class Reader:
    """Types the commands of a page, for a site of its own."""

    def __init__(self, site: Site, env: dict[str, str], directory: Path) -> None:
        """`env`: of the site, whose settings the terminal has too, without its limits on origins."""
        self._env = {**os.environ, **env, "TOKEN": SECRET}
        del self._env["DOWNLOAD_ORIGINS"]
        self._directory = directory
        self._replaced = {
            "https://mysite.example.com": site.server.url,
            "http://127.0.0.1:8000": site.server.url,
            "https://files.example.com": f"{site.origin.url}/file",
            "/tmp/files": str(directory / "files"),  # noqa: S108 (of the page)
            ".venv/bin/python manage.py": f"{sys.executable} {ROOT / 'manage.py'}",
            "python -c": f"{sys.executable} -c",
        }
        order = {"urls": [f"{site.origin.url}/file/b.iso"]}
        (directory / "order.json").write_text(json.dumps(order))

    def types(self, block: str) -> str:
        """Run a block; return what it printed."""
        for word, value in self._replaced.items():
            block = block.replace(word, value)
        done = subprocess.run(
            ["bash", "-ec", block],
            cwd=self._directory,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if id_of_job := re.search(r'"id": "([0-9a-f-]{36})"', done.stdout):
            self._replaced["<id>"] = id_of_job[1]
        return done.stdout
