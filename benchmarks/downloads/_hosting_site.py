"""A site that runs downloads, for benchmarks, and a connection to one of its workers."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.downloads._bulk_origins import files_directory
from benchmarks.measuring import ROOT
from cacheapp import clock
from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from cacheapp.processes.workers import Moved, NotReached, Workers

WORKERS = 4
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)")


class Quick:
    """A connection to one worker, for measurements (TCP_NODELAY).

    `http.client` sends head and body separately, and the kernel delays the acknowledgement of
    partial requests: 40 ms that have nothing to do with the worker.
    """

    def __init__(self, url: str, pid: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._host = host
        while True:
            self._socket = socket.create_connection((host, int(port)))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.ask("GET", "/api/worker")[1]["pid"] == pid:
                return
            self._socket.close()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[float, dict[str, Any]]:
        """Return the response time in milliseconds, and the response."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(data)}\r\n"
        kind = "Content-Type: application/json\r\n\r\n"
        began_s = clock.monotonic_s()
        self._socket.sendall(f"{head}{kind}".encode() + data)
        answer = b""
        while not _is_whole(answer):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            got = self._socket.recv(65536)
            if not got:
                raise ConnectionError(f"closed after {answer!r}")
            answer += got
        took_ms = (clock.monotonic_s() - began_s) * 1e3
        return took_ms, json.loads(answer.partition(b"\r\n\r\n")[2])

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _is_whole(answer: bytes) -> bool:
    head, gap, body = answer.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    return bool(gap and found and len(body) >= int(found[1]))


class Site:
    """A separate Gunicorn with a database."""

    def __init__(
        self, stack: contextlib.ExitStack, origins: list[str], authority: str, **settings: str
    ) -> None:
        """Start it. `authority`: the certificates to trust; `settings`: further environment."""
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = stack.enter_context(tempfile.TemporaryDirectory(dir=files_directory()))
        self.downloads = data / "downloads"
        self.downloads.symlink_to(files)
        env = {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "DATA_DIR": str(data),
            "SECRET_KEY": "only-for-benchmarks-" + "x" * 50,
            "DEMO": "1",
            "SECURE_SSL_REDIRECT": "0",
            "LOG_LEVEL": "ERROR",
            "MAX_REQUESTS": "0",
            "WEB_CONCURRENCY": str(WORKERS),
            "DOWNLOAD_ORIGINS": ",".join(origins),
            "SSL_CERT_FILE": authority,
            **settings,
        }
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=ROOT, env={**os.environ, **env}, check=True)
        server = GunicornServer("project.wsgi:application", ROOT, env)
        stack.enter_context(server)
        self.url = server.url
        self.workers = stack.enter_context(Workers(server.url, count=WORKERS))
        server.start()

    def order(self, pid: int, urls: list[str], threads: int) -> dict[str, Any]:
        """Create a job at a worker; return its JSON."""
        return self.create(pid, {"urls": urls, "threads": threads})

    def create(self, pid: int, wanted: dict[str, Any]) -> dict[str, Any]:
        """Create a job at a worker from the body of an order; return its JSON."""
        answer = self.workers.ask(pid, "POST", "/api/downloads", wanted)
        if answer.status != 202:  # noqa: PLR2004 (HTTP's)
            raise RuntimeError(f"not begun: {answer.body}")
        return answer.body

    def look(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON of a job from any worker; raise if the job has failed."""
        try:
            pids = self.workers.find()
            found = self.workers.ask(pids[0], "GET", f"/api/downloads/{job['id']}").body
        except (Moved, NotReached):  # of a killed worker
            return dict(job)
        if found.get("state") in {"failed", "cancelled"}:
            raise RuntimeError(f"the job failed: {found}")
        return found

    def end_of(self, job: dict[str, Any]) -> dict[str, Any]:
        """Wait for a job to succeed; return it."""

        def ended() -> dict[str, Any]:
            found = self.look(job)
            return found if found["state"] == "succeeded" else {}

        return until(ended, "the job to succeed", 300)

    def forget(self, job: dict[str, Any]) -> None:
        """Remove the files of a job to free the disk."""
        directory = self.downloads / job["id"]
        # Its worker may be removing the rest at this moment.
        for path in list(directory.glob("[!.]*")):
            path.unlink()
