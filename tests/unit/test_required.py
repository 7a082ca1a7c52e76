"""Tests that require a missing program: skipped, or failed in CI."""

import os
from types import ModuleType

import pytest

from tests import ensure_chromium, ensure_postgres
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
    ("ensure", "find", "said"),
    [
        (ensure_postgres, "find_postgres", "Some tests need a real PostgreSQL server"),
        (ensure_chromium, "find_chromium", "The browser tests need Chromium"),
    ],
)
@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_what_is_missing_is_said_and_fails_where_it_is_required(
    ensure: ModuleType,
    find: str,
    said: str,
    ci: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ensure, find, lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # without root, nothing is installed
    monkeypatch.setenv("CI", ci)
    assert ensure.main() == status
    assert said in capsys.readouterr().err
