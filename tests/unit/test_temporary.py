"""The check of what a run of the tests leaves in the temporary directory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.temporary import LeftBehind


@pytest.fixture
def check() -> Iterator[LeftBehind]:
    made = LeftBehind(within_s=1.0)
    yield made
    made.pytest_unconfigure()


def _end(check: LeftBehind) -> object:
    """Return the exit status of a run without failed tests."""
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    check.pytest_sessionfinish(cast("pytest.Session", session))
    return session.exitstatus


def test_a_run_that_leaves_nothing_passes(check: LeftBehind) -> None:
    tempfile.TemporaryFile().close()
    assert _end(check) == pytest.ExitCode.OK


def test_a_run_that_leaves_a_directory_fails_and_names_it(
    check: LeftBehind, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    path = Path(tempfile.mkdtemp(prefix="left-"))
    (path / "file").write_text("of a test")
    assert _end(check) == pytest.ExitCode.TESTS_FAILED
    check.pytest_terminal_summary(pytest.TerminalReporter(pytestconfig))
    assert f"{path.name}\n{path.name}/file: b'of a test'\n" in capsys.readouterr().out
    check.pytest_unconfigure()
    assert not path.exists()
