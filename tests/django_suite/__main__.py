"""Run Django's tests: `python -m tests.django_suite DJANGO_SOURCE BACKEND LOCATION`.

`DJANGO_SOURCE` is the unpacked source of the Django that is installed (`pip download --no-deps --no-binary
:all: django==VERSION`), which contains its tests. `BACKEND` is the name of a class in
`cacheapp.backends`, `LOCATION` a new directory or the URL of an empty Redis.
"""

import sys
import tempfile
import unittest
from importlib import import_module
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.test import TestCase
from django.test.utils import get_runner, override_settings

from cacheapp import backends

_LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
_LIBERAL = "cache.liberal_backend.CacheClass"

# What uses a cache of any kind, and is tested by Django with LocMemCache.
_WITH_LOCMEM = (
    *("CacheUtils", "PrefixedCacheUtils", "CacheHEADTest", "CacheI18nTest"),
    *("PrefixedCacheI18nTest", "CacheMiddlewareTest", "TestWithTemplateResponse"),
    *("CacheHandlerTest", "DefaultNonExpiringCacheKeyTests", "CustomCacheKeyValidationTests"),
)

# Aliases of one LOCATION that differ in VERSION or KEY_FUNCTION share no entries: `cacheapp.W013`.
_SHARING = "add delete get_set get_set_many has_key incr_decr"
_EXPECTED = {
    "DiskCache": {
        *(f"test_cache_versioning_{name}" for name in _SHARING.split()),
        *("test_custom_key_func", "test_incr_version"),
    }
}


def _entry(backend: str, location: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of CACHES in place of one of LocMemCache."""
    name = str(params.get("LOCATION", "default"))
    if backend == "RedisCache":
        return {**params, "BACKEND": _path(backend), "LOCATION": location, "KEY_PREFIX": name}
    return {**params, "BACKEND": _path(backend), "LOCATION": str(Path(location) / name)}


def _path(backend: str) -> str:
    return f"cacheapp.backends.{backend}"


def _test_cases(backend: str, location: str) -> list[type]:
    theirs = import_module("cache.tests")
    liberal = import_module("cache.liberal_backend")
    liberal.CacheClass = type(  # type: ignore[attr-defined]
        "CacheClass", (liberal.LiberalKeyValidationMixin, getattr(backends, backend)), {}
    )
    base = {"BACKEND": _path(backend), "LOCATION": str(location)}
    # The limits of these two are a number of entries; ours are bytes.
    aliases = theirs.caches_setting_for_tests(base=base, exclude={"cull", "zero_cull"})
    found = [_with_caches("OurTests", (theirs.BaseCacheTests, TestCase), aliases)]
    for name in _WITH_LOCMEM:
        cls = getattr(theirs, name)
        entries = (getattr(cls, "_overridden_settings", None) or {}).get("CACHES")
        replaced = {}
        for alias, params in (entries or {"default": {"BACKEND": _LOCMEM}}).items():
            replaced[alias] = _entry(backend, location, params)
            if params["BACKEND"] == _LIBERAL:
                replaced[alias]["BACKEND"] = _LIBERAL
        found.append(_with_caches(name, (cls,), replaced))
    return found


def _with_caches(name: str, bases: tuple[type, ...], entries: dict[str, Any]) -> type:
    decorate: Any = override_settings(CACHES=entries)
    found: type = decorate(type(name, bases, {}))
    return found


def _configure(state_dir: str) -> None:
    settings.configure(
        CACHEAPP={"STATE_DIR": state_dir},
        CACHES={"default": {"BACKEND": _LOCMEM}},
        DATABASES={
            alias: {"ENGINE": "django.db.backends.sqlite3"} for alias in ("default", "other")
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=["cache"],
        LANGUAGE_CODE="en",
        ROOT_URLCONF="tests.django_suite",
        SECRET_KEY="x" * 50,
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        USE_TZ=False,
    )
    django.setup()


def main() -> int:
    """Run the tests; return 1 if others failed than those that differ on purpose."""
    source, backend, location = sys.argv[1:]
    sys.path.insert(0, str(Path(source) / "tests"))
    with tempfile.TemporaryDirectory(prefix="cacheapp-tests-") as state_dir:
        _configure(state_dir)
        runner = get_runner(settings)()
        runner.setup_test_environment()
        databases = runner.setup_databases()
        load = unittest.TestLoader().loadTestsFromTestCase
        cases: list[Any] = _test_cases(backend, location)
        result = runner.run_suite(unittest.TestSuite(load(case) for case in cases))
        runner.teardown_databases(databases)
        runner.teardown_test_environment()
    failed: list[Any] = [case for case, _ in result.failures + result.errors]
    names = {case._testMethodName for case in failed}  # noqa: SLF001 (a setUpClass has none)
    expected = _EXPECTED.get(backend, set())
    sys.stdout.write(
        f"{result.testsRun} tests, {len(failed)} failed; unexpected: {sorted(names ^ expected)}\n"
    )
    return int(names != expected)


if __name__ == "__main__":
    sys.exit(main())
