"""The pins of the packages: complete, with hashes, and from no particular index."""

import re
from pathlib import Path

import pytest

from tests.audit import ACCEPTED, answered, findings

ROOT = Path(__file__).resolve().parents[2]
PINS = sorted(ROOT.glob("requirements*.txt"))


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return found[0].lower().replace("_", "-").replace(".", "-")


def _pinned(file: Path) -> dict[str, str]:
    """Return each requirement of a file with its hashes, as one line."""
    lines = file.read_text().replace("\\\n", "").splitlines()
    return {
        _name(line): line for line in lines if line.strip() and not line.lstrip().startswith("#")
    }


@pytest.mark.parametrize("file", PINS, ids=lambda file: file.name)
def test_every_pin_has_a_version_and_hashes_and_names_no_index(file: Path) -> None:
    assert "://" not in file.read_text()
    for line in _pinned(file).values():
        assert re.match(r"[\w.\[\]-]+==[\w.]+ ", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("file", PINS, ids=lambda file: file.name)
def test_every_direct_need_is_pinned(file: Path) -> None:
    wanted = [
        _name(line)
        for line in file.with_suffix(".in").read_text().splitlines()
        if line and not line.startswith(("#", "-"))
    ]
    assert wanted
    assert set(wanted) <= _pinned(file).keys(), "run: make pins KEEP=1"


def test_the_tests_run_with_the_versions_that_the_project_runs_with() -> None:
    run, dev = (
        {name: line.split()[0] for name, line in _pinned(ROOT / file).items()}
        for file in ("requirements.txt", "requirements-dev.txt")
    )
    assert run.items() <= dev.items(), "run: make pins KEEP=1"


def _report(*vulnerabilities: str, **package: object) -> dict[str, object]:
    vulns = [{"id": each, "aliases": [], "fix_versions": ["6"]} for each in vulnerabilities]
    return {"dependencies": [{"name": "it", "version": "5", "vulns": vulns, **package}]}


def test_a_vulnerability_is_found_unless_it_is_accepted() -> None:
    (accepted,) = ACCEPTED
    assert findings(_report("CVE-1", accepted), ACCEPTED) == ["it 5: CVE-1 (fixed in 6)"]
    alias = {"id": "GHSA-1", "aliases": [accepted], "fix_versions": []}
    assert (
        findings({"dependencies": [{"name": "it", "version": "5", "vulns": [alias]}]}, ACCEPTED)
        == []
    )


def test_an_index_that_knows_no_package_has_not_audited() -> None:
    assert answered(_report())
    assert not answered({"dependencies": [{"name": "it", "skip_reason": "not found"}]})
