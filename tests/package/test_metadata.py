"""What the package declares fits what the code imports and contains; without building it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from cacheapp.extras import OPTIONAL

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
MODULE_OF = {
    "prometheus-client": "prometheus_client",
    "opentelemetry-api": "opentelemetry",
    "django-redis": "django_redis",
    "django-htmx": "django_htmx",
    "djangorestframework": "rest_framework",
}


def _name(requirement: str) -> str:
    found = re.match(r"[\w-]+", requirement)
    assert found
    return found[0]


def test_the_core_requires_three_packages() -> None:
    assert {_name(it) for it in PROJECT["dependencies"]} == {"django", "lmdb", "msgpack"}


def test_the_extra_all_has_every_other_one() -> None:
    (everything,) = EXTRAS["all"]
    assert set(re.findall(r"\w+", everything)) - {"cacheapp"} == EXTRAS.keys() - {"all"}


def test_each_optional_package_is_in_an_extra() -> None:
    found = {
        MODULE_OF.get(_name(it), _name(it))
        for requirements in EXTRAS.values()
        for it in requirements
        if _name(it) != "cacheapp"
    }
    assert found | {"kombu", "hiredis"} == OPTIONAL  # they come with celery and redis[hiredis]


def test_the_code_imports_no_package_that_is_neither_required_nor_optional() -> None:
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "cacheapp").rglob("*.py")
        for name in _imported(ast.parse(path.read_text()))
    }
    core = {"cacheapp", "django", "asgiref", "lmdb", "msgpack"}  # Django requires asgiref
    assert imported - sys.stdlib_module_names - core - OPTIONAL - {"annotationlib"} == {
        "diskcache_community",  # in place of diskcache
        "sentry_sdk",  # its own use of cacheapp
        "pytest",  # its own plug-in
        *("moto", "werkzeug"),  # the lab's server of S3
    }  # annotationlib is Python's, from 3.14


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_each_extra_that_the_code_names_exists() -> None:
    text = "".join(path.read_text() for path in (ROOT / "cacheapp").rglob("*.py"))
    named = re.findall(r'(?:needed_for|missing)\([^()]*, "(\w+)"\)', text)
    named += re.findall(r'load_command\("[\w.]+", "(\w+)"', text)
    assert len(named) > 5
    assert set(named) <= EXTRAS.keys()
