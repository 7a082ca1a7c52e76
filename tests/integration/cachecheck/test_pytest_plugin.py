import os
import subprocess
import sys
from pathlib import Path

import pytest

from cacheapp.cachecheck.pytest_checks import checks_of

PLUGIN = ["-p", "cacheapp.cachecheck.pytest_plugin", "-p", "no:cacheprovider"]
ROOT = Path(__file__).parents[3]
QUICK = "seconds=0.2, processes=2, threads=1"
CACHES = '''
import os

import diskcache


class Forgets:
    """Finds nothing: proven by one process alone, however little the two overlap."""

    timeouts = False

    def get(self, key, default=None):
        return default

    def set(self, key, value, timeout):
        pass

    def delete(self, key):
        return False


def right():
    return diskcache.Cache(os.environ["SUBJECT_DIR"])
'''
TESTS = f"""
import pytest


@pytest.mark.cachecheck(subject="caches:right", only=["add"], {QUICK})
def test_right(cachecheck):
    cachecheck.holds()


@pytest.mark.cachecheck(subject="caches:Forgets", only=["registers", "add"], {QUICK})
def test_broken(cachecheck):
    cachecheck.holds()


@pytest.mark.cachecheck(subject="caches:Forgets", only=["registers"], known=["one order"], {QUICK})
def test_known(cachecheck):
    cachecheck.holds()
"""


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ours = ("DJANGO_SETTINGS_MODULE", "PYTEST_ADDOPTS")
    env = {key: value for key, value in os.environ.items() if key not in ours}
    env |= {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{directory}",
        "SUBJECT_DIR": str(directory / "store"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, *arguments],
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "caches.py").write_text(CACHES)
    (tmp_path / "test_caches.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    return tmp_path


def test_a_suite_with_xdist_fails_with_the_calls_that_prove_it(project: Path) -> None:
    done = run(project, "-rA", "-p", "xdist", "-n", "2")
    said = done.stdout
    assert done.returncode == 1, said + done.stderr
    assert "PASSED test_caches.py::test_right[right: one winner of add]" in said
    assert "Forgets: one order: BROKEN: 6 of 6 keys" in said
    assert "no order of these" in said
    assert "├ " in said
    assert "XFAIL test_caches.py::test_known[Forgets: one order]" in said
    assert "SKIPPED" in said, "it has no add"


def test_an_option_adds_a_test_for_each_property(project: Path) -> None:
    done = run(project, "--cachecheck=caches:Forgets", "--cachecheck-seconds=0.2", "--collect-only")
    assert "Forgets: no increment lost" in done.stdout
    assert "(async)" not in done.stdout


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ({"only": ["magic"]}, "no workload magic; use registers"),
        ({"known": ["x"]}, "no property x"),
    ],
)
def test_a_wrong_name_is_a_usage_error(names: dict[str, list[str]], complaint: str) -> None:
    with pytest.raises(pytest.UsageError, match=complaint):
        checks_of(subject="caches:right", **names)


def test_the_plugin_imports_nothing_heavy(project: Path) -> None:
    (project / "test_caches.py").write_text(
        "import sys\n\n\ndef test_imports():\n"
        "    found = {name for name in sys.modules if name.startswith(('django', 'cacheapp.'))}\n"
        "    assert found <= {'cacheapp.cachecheck', 'cacheapp.cachecheck.pytest_plugin'}\n"
    )
    done = run(project)
    assert done.returncode == 0, done.stdout
