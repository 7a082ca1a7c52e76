"""What the system tests of downloads share: a site of four workers, and questions to them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from cacheapp.processes.workers import Answer, AnswerLost, Connection, Moved, NotReached, Workers
from project.data_directory import private_database
from tests.origin import Origin, body

ROOT = Path(__file__).resolve().parents[3]
FINISHED = {"succeeded", "failed", "cancelled"}
ENDING = (Moved, AnswerLost, NotReached)
"""What a request raises whose worker is ending, or was killed."""
PATIENT = {
    "DJANGO_SETTINGS_MODULE": "tests.system.downloads.patient_settings",
    "DOWNLOAD_HEARTBEAT_S": "60",
}
"""For jobs that no other worker may adopt, also if theirs is not scheduled for some seconds."""
SOON_LOST = {"DOWNLOAD_HEARTBEAT_S": "10"}
"""For jobs that another worker adopts when theirs was killed: after 6 s without a heartbeat."""


_migrated: dict[str, bytes] = {}
"""A new database of each settings module: to make one takes 2 s of CPU."""


def migrate(env: Mapping[str, str]) -> None:
    """Make the site's database."""
    settings, database = env["DJANGO_SETTINGS_MODULE"], Path(env["DATA_DIR"]) / "db.sqlite3"
    new = not database.exists()
    if new and settings in _migrated:
        private_database(database).write_bytes(_migrated[settings])
        return
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, check=True)
    if new:
        _migrated[settings] = database.read_bytes()


class Site:
    """A Gunicorn of four workers; a request can choose the worker by pid."""

    def __init__(self, server: GunicornServer, env: Mapping[str, str], origin: Origin) -> None:
        self.server = server
        self.downloads = Path(env["DATA_DIR"]) / "downloads"
        self.origin = origin
        self.workers = Workers(server.url, count=4, within_s=120)

    def order(self, paths: list[str], threads: int = 8, pid: int | None = None) -> dict[str, Any]:
        """Have one worker download paths of the origin; return what it answered."""
        pid = self.workers.find()[0] if pid is None else pid
        wanted = {"urls": [self.origin.url + path for path in paths], "threads": threads}
        answer = self.workers.ask(pid, "POST", "/api/downloads", wanted)
        assert answer.status == 202, answer.body
        assert answer.body["owner_pid"] == pid
        return answer.body

    def ask_any(self, method: str, path: str) -> Answer:
        """Send a request on a connection of its own, which no suspended worker takes."""
        connection = Connection(self.server.url)
        try:
            return connection.ask(method, path)
        finally:
            connection.close()

    def look(self, job: Mapping[str, Any], pid: int | None = None) -> dict[str, Any]:
        """Return the job as a worker shows it."""
        pid = self.workers.find()[-1] if pid is None else pid
        answer = self.workers.ask(pid, "GET", f"/api/downloads/{job['id']}")
        assert answer.status == 200, answer.body
        return answer.body

    def wait_for_state(self, job: Mapping[str, Any], state: str) -> dict[str, Any]:
        """Return the job once it is in that state; another end than that is a failure."""

        def there() -> dict[str, Any]:
            try:
                found = self.look(job)
            except ENDING:
                return {}
            assert found["state"] in {state, "queued", "running"}, found
            return found if found["state"] == state else {}

        found = until(there, f"job {job['id']} to be {state}", 150)
        if state in FINISHED:
            self.until_cleared(job)
        return found

    def until_cleared(self, job: Mapping[str, Any]) -> None:
        """Wait until the runs of a job that has ended have left nothing: that comes a moment later."""
        directory = self.downloads / job["id"]
        until(lambda: not list(directory.glob(".*")), "what the runs left to be removed")

    def files(self, job: Mapping[str, Any]) -> dict[str, bytes]:
        """Return all that lies in the job's directory."""
        directory = self.downloads / job["id"]
        found = (path for path in directory.rglob("*") if path.is_file())
        return {str(path.relative_to(directory)): path.read_bytes() for path in found}

    def until_partials(self, job: Mapping[str, Any], count: int) -> None:
        """Wait until so many files are on their way."""
        directory = self.downloads / job["id"]
        until(lambda: len(list(directory.glob(".*/*.part"))) == count, f"{count} partial files")


def expected(count: int, size: int) -> dict[str, bytes]:
    """Return what `/file/<n>.bin?n=<n>&bytes=<size>` gives, by name."""
    return {f"{n}.bin": body({"n": str(n), "bytes": str(size)}) for n in range(count)}


def paths(count: int, size: int) -> list[str]:
    """Return paths of as many files, which differ."""
    return [f"/file/{n}.bin?n={n}&bytes={size}" for n in range(count)]
