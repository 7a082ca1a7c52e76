"""The steps of docs/tutorial.md, run from top to bottom, do what the page shows."""

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheapp.processes.waiting import until
from tests.ensure_programs import NO_CURL, find_curl
from tests.ports import free_port
from tests.required import skip_or_fail
from tests.system.conftest import ROOT

PAGE = ROOT / "docs" / "tutorial.md"
NOT_REPEATED = ("mkdir ", "python3 -m venv ", "pip install ")
"""What the tests have already: a directory of their own, and this environment."""


class Reader:
    """Does what the page says: writes its files, runs its commands, keeps what they print."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.outputs: list[tuple[str, str]] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.log = directory / "gunicorn.log"
        bin_directory = Path(sys.executable).parent
        self.env = {
            key: value
            for key, value in os.environ.items()
            if key not in ("DJANGO_SETTINGS_MODULE", "CACHEAPP_TESTS", "DATA_DIR")
        } | {
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(directory),
            "TMPDIR": str(directory),
        }

    def follow(self, page: str) -> None:
        steps = re.findall(
            r"([^\n]*)\n\n```(python|console)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
        )
        for caption, language, block in steps:
            if language == "python":
                self._write(caption, block)
            else:
                for command in re.findall(r"^\$ (.+)$", block, re.MULTILINE):
                    self._run(command)

    def _write(self, caption: str, block: str) -> None:
        (name,) = re.findall(r"`(mysite/\w+\.py)`", caption)
        appended = caption.startswith("At the end of ")
        with (self.directory / name).open("a" if appended else "w") as file:
            file.write(f"\n{block}" if appended else block)

    def _run(self, command: str) -> None:
        command = command.replace(":8000", f":{self.port}")
        if command.startswith("gunicorn "):
            self._serve(command)
        elif not command.startswith(NOT_REPEATED):
            found = subprocess.run(
                ["bash", "-c", command],
                cwd=self.directory,
                env=self.env,
                capture_output=True,
                text=True,
                timeout=800,
                check=False,
            )
            self.outputs.append((command, found.stdout + found.stderr))

    def _serve(self, command: str) -> None:
        self.end()
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                command.split(), cwd=self.directory, env=self.env, stdout=log, stderr=log
            )
        until(self._answers, "Gunicorn", 120)

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(120)
            self.server = None

    def printed_by(self, words: str) -> list[str]:
        return [output for command, output in self.outputs if words in command]


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    if find_curl() is None:
        skip_or_fail(NO_CURL)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tutorial-") as name:
        reader = Reader(Path(name), port)
        try:
            reader.follow(PAGE.read_text())
            yield reader
        finally:
            reader.end()


def _hits(output: str) -> list[int]:
    return [int(number) for number in re.findall(r'"hits": (\d+)', output)]


def test_the_first_cache_counts_wrong_and_the_second_right(reader: Reader) -> None:
    before, after = map(_hits, reader.printed_by("for i in"))
    assert len(before) == 3
    assert max(before) < 201
    assert after == [201, 202, 203]


def test_the_system_check_warns_of_the_first_cache_only(reader: Reader) -> None:
    before, after = reader.printed_by("manage.py check")
    (shown,) = re.findall(r"^.*cacheapp\.W001.*$", PAGE.read_text(), re.MULTILINE)
    assert shown.removesuffix("…") in before
    assert "no issues" in after


def test_the_check_finds_the_first_cache_broken_and_the_second_not(reader: Reader) -> None:
    before, after = reader.printed_by("manage.py cachecheck")
    assert before.count("│ BROKEN") == 3
    call = re.compile(r"^  process \d, thread \d +├─* add \d+ -> (yes|no)", re.MULTILINE)
    assert call.search(PAGE.read_text())
    assert call.search(before)
    said = re.compile(r"prints (\d+) properties.* (\d+) of them hold\. (\d+) are NOT APPLICABLE")
    (shown,) = said.findall(PAGE.read_text())
    every, hold, rest = map(int, shown)
    assert (after.count("│ HOLDS"), after.count("│ NOT APPLICABLE")) == (hold, rest)
    assert every == hold + rest
    assert "BROKEN" not in after


def test_one_worker_computes_the_report(reader: Reader) -> None:
    assert reader.printed_by("/report") == ['{"sold": 7}' * 16]
    assert reader.log.read_text().count("computes the report") == 1


def test_five_attempts_to_sign_in_are_admitted_in_a_minute(reader: Reader) -> None:
    (output,) = reader.printed_by("/login")
    counts = {code: int(number) for number, code in re.findall(r"(\d+) (\d{3})", output)}
    assert sum(counts.values()) == 12
    assert counts["200"] in (5, 6, 7, 8, 9, 10)  # above 5 where a minute began in between
    (stats,) = reader.printed_by("manage.py cachestats")
    assert "factory_runs" in stats
