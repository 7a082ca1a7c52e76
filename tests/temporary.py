"""A temporary directory for one run of the tests, so that what they leave there is found and named.

The directories that pytest makes for its tests and keeps are not in it.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from cacheapp.processes.waiting import until

OF_PLUGINS = ("playwright-pytest-*",)
"""What a plugin of pytest removes only when its process ends."""
SHOWN = 20
BEGIN = 500  # bytes
END_S = 60
"""How long a program may take to end after its parent, on a busy machine."""


class RunDirectory:
    """The directory of a run, in place of `/tmp`: also for child processes, by `TMPDIR`."""

    def __init__(self) -> None:
        self._kept = {name: os.environ.get(name) for name in ("TMPDIR", "PYTEST_DEBUG_TEMPROOT")}
        usual = tempfile.gettempdir()
        # The name is short: the path of a socket has at most 107 bytes.
        self.path = Path(tempfile.mkdtemp(prefix="t-", dir=usual))
        self.path.chmod(stat.S_ISVTX | 0o777)  # as /tmp is: some tests act as another user
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", usual)
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.path)

    def left(self) -> list[str]:
        """Return what is in it, of each name at most a few paths, and how each file begins."""
        found = []
        for entry in self.entries():
            for each in [entry, *sorted(entry.rglob("*"))][:SHOWN]:
                name = str(each.relative_to(self.path))
                with contextlib.suppress(OSError):  # a directory or socket; or it is gone now
                    name += f": {each.read_bytes()[:BEGIN]!r}"
                found.append(name)
        return found

    def entries(self) -> list[Path]:
        """Return what is directly in it."""
        found = sorted(self.path.iterdir())
        return [path for path in found if not any(map(path.match, OF_PLUGINS))]

    def remove(self) -> None:
        """Remove it with all that is in it, and use the usual one again."""
        tempfile.tempdir = None
        for name, value in self._kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(self.path, ignore_errors=True)


class LeftBehind:
    """Plugin of the process that starts the run: fails a run that leaves something behind."""

    def __init__(self, within_s: float = END_S) -> None:
        self._within_s = within_s
        self._directory = RunDirectory()
        self._left: list[str] = []

    @pytest.hookimpl(trylast=True)  # after that of xdist, which waits for the processes of the run
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look when all fixtures have cleaned up, and the programs that end with their parent."""
        with contextlib.suppress(TimeoutError):
            until(
                lambda: not self._directory.entries(),
                "the temporary directory to be empty",
                self._within_s,
            )
        self._left = self._directory.left()
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was left."""
        if self._left:
            terminalreporter.section("left in the temporary directory: expected nothing", red=True)
            for name in self._left:
                terminalreporter.write_line(name)

    def pytest_unconfigure(self) -> None:
        """Remove the directory."""
        self._directory.remove()
