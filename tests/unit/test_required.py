"""Tests that require a missing program: skipped, or failed in CI."""

import os

import pytest

from tests import ensure_programs
from tests.required import required


@pytest.mark.parametrize("ci", ["1", "true", "True", "yes"])
def test_in_ci_everything_is_required(ci: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)
    assert required()


@pytest.mark.parametrize("ci", [None, "", "0", "false"])
def test_on_somebodys_own_machine_it_is_not(
    ci: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    assert not required()


@pytest.mark.parametrize(
    ("find", "message"),
    [
        ("find_redis_server", "apt install redis-server"),
        ("find_postgres", "apt install postgresql"),
        ("find_chromium", "apt install chromium"),
        ("find_nginx", "apt install nginx"),
    ],
)
@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_missing_program_is_named_and_fails_where_it_is_required(
    find: str,
    message: str,
    ci: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("find_redis_server", "find_postgres", "find_chromium", "find_nginx"):
        monkeypatch.setattr(ensure_programs, name, lambda name=name: name != find or None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # without root, nothing is installed
    monkeypatch.setenv("CI", ci)
    assert ensure_programs.main() == status
    assert message in capsys.readouterr().err
