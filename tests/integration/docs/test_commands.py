"""Every command in the console blocks of README and docs runs: here, or in the test that is named for it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.integration.docs.blocks import console_commands, pages
from tests.integration.docs.run_pages import ROOT
from tests.integration.downloads.s3_store import Store, running_store
from tests.origin import Origin

ELSEWHERE = {
    "docs/tutorial.md": {"": "tests/system/test_tutorial.py"},
    "": {
        "make run": "tests/system/test_make_run.py",
        "make demo": "tests/system/test_demo_command.py",
        "make bench": "tests/system/test_benchmarks.py",
        "make pictures": "tests/browser/pictures.py",
        "make check": ".ci/run",
        "make test": ".ci/run",
        ".venv/bin/pip install": ".pre-commit-config.yaml",
        ".venv/bin/pre-commit": ".pre-commit-config.yaml",
        "rm -rf dist && .venv/bin/python -m build": "tests/package/test_wheel.py",
        ".venv/bin/python -m twine check": "tests/package/test_wheel.py",
        "pip install": "tests/package/test_wheel.py",
        "python -m cacheapp.cachecheck": "tests/integration/cachecheck/test_subjects.py",
        "python manage.py cachecheck": "tests/system/test_cachecheck_command.py",
        "python manage.py cachestats": "tests/integration/test_cachestats.py",
        "python manage.py lab": "tests/system/test_lab_command.py",
        "python manage.py migrate": "tests/integration/downloads/upgrade_steps.py",
        "python manage.py downloads --work": "tests/system/downloads/test_work_command.py",
    },
}
"""By page and beginning of the command: where it runs. Each takes longer than a test here may."""


def _place_of(page: Path, command: str) -> str | None:
    command = re.sub(r"^([A-Z_]+=\S+ )+", "", command)
    for name in (str(page.relative_to(ROOT)), ""):
        for begin, place in ELSEWHERE.get(name, {}).items():
            if command.startswith(begin):
                return place
    return None


ALL = [
    (page, command)
    for page in [*pages(ROOT), ROOT / "CONTRIBUTING.md"]
    for command in console_commands(page.read_text())
]
HERE = [command for page, command in ALL if _place_of(page, command) is None]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def store() -> Iterator[Store]:
    with running_store() as found:
        for key in ("prefix/a", "prefix/b", "logs/c.json", "logs/tmp/d.json", "logs/e.txt"):
            found.put(key, key.encode())
        yield found


@pytest.mark.django_db(transaction=True)
def test_the_commands_that_download_run_one_after_the_other(
    origin: Origin, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text(f"{origin.url}/file/one\n{origin.url}/file/two\n")
    elsewhere = [it for it in HERE if not it.startswith("python manage.py download")]
    assert elsewhere == [], "add the test that runs it to ELSEWHERE"
    for command in HERE:
        program, script, *words = shlex.split(command)
        assert (program, script) == ("python", "manage.py")
        words = [
            word.replace("https://files.example.com", f"{origin.url}/file")
            .replace("s3://bucket/", "s3://files/")
            .replace("/data", str(tmp_path / "data"))
            for word in words
        ]
        if words[0] == "download":
            words += ["--allow", "127.0.0.0/8", "--endpoint", store.endpoint]
        call_command(*words)
    found = {path.name for path in (tmp_path / "data").rglob("*") if not path.name.startswith(".")}
    assert found == {"a.iso", "b.iso", "one", "two", "a", "b", "c.json"}


def test_each_command_that_runs_elsewhere_is_in_the_pages_and_its_place_exists() -> None:
    for page, places in ELSEWHERE.items():
        for begin, place in places.items():
            assert (ROOT / place).exists()
            assert any(
                command.startswith(begin) and (not page or path == ROOT / page)
                for path, command in ALL
            ), begin
