"""Execute the Python of pages, each page in a forked process; print a line of JSON for each.

    python -m tests.integration.docs.run_pages DIRECTORY REDIS_URL PAGE ...

A block that only assigns settings is applied to Django's settings: its checks must find no error, and
its caches must work. A part of a dict, such as `"OPTIONS": {…}`, belongs to the alias `default` of the
block before. Everything else is executed as one module, from top to bottom.
"""

import ast
import copy
import hashlib
import json
import logging.config
import os
import shutil
import sys
import traceback
import types
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core import checks
from django.core.cache import caches
from django.test import override_settings

from tests.integration.docs.blocks import Step, steps_of

ROOT = Path(__file__).parents[3]
MODULE = "shop.prices"
"""The name of the module that the blocks of a page make together; docs/howto/compute-once.md shows it."""

DJANGOS_APPS = [
    f"django.contrib.{name}"
    for name in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
]
_TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                f"django.{name}"
                for name in (
                    "template.context_processors.request",
                    "contrib.auth.context_processors.auth",
                    "contrib.messages.context_processors.messages",
                )
            ]
        },
    }
]


def _in(place: Path) -> dict[str, Any]:
    """Return the settings that name a directory."""
    cache = {
        "BACKEND": "cacheapp.backends.LMDBCache",
        "LOCATION": place / "cache",
        "KEY_PREFIX": "mysite",
    }
    return {
        "BASE_DIR": place,
        "CACHES": {"default": cache},
        "CACHEAPP": {"STATE_DIR": place / "state", "DOWNLOAD_ROOT": place / "downloads"},
    }


def configure(place: Path) -> None:
    """Make the settings of a new project, with cacheapp."""
    settings.configure(
        SECRET_KEY="only-for-tests-" + "x" * 50,
        ALLOWED_HOSTS=["testserver"],
        INSTALLED_APPS=[*DJANGOS_APPS, "cacheapp", "cacheapp.downloads"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        ROOT_URLCONF="cacheapp.urls",
        TEMPLATES=_TEMPLATES,
        STATIC_URL="static/",
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": place / "db.sqlite3"}
        },
        LOGGING={"version": 1, "disable_existing_loggers": False},
        USE_TZ=True,
        **_in(place),
    )
    django.setup()


def _names(tree: ast.Module) -> set[str] | None:
    """Return the settings that a block assigns, or `None` if it does anything else."""
    found = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AugAssign) else targets
        if not targets:
            return None
        for target in targets:
            base = target.value if isinstance(target, ast.Subscript) else target
            if not isinstance(base, ast.Name) or not base.id.isupper():
                return None
            found.add(base.id)
    return found


class Page:
    """One page, and what its blocks have made so far."""

    def __init__(self, path: Path, place: Path, redis_url: str) -> None:
        self._path = path
        self._place = place
        self._module = types.ModuleType(MODULE)
        sys.modules[MODULE] = self._module
        self._replaced = {
            "/var/lib/mysite": str(place),
            "/var/tmp/mysite": str(place / "tmp"),  # noqa: S108 (of a page)
            "/run/secrets": str(place),
            "redis://cache.internal:6379/0": redis_url,
            "<digest>": hashlib.sha256(b"secret").hexdigest(),
            "https://<key>@sentry.example.com/1": "http://key@127.0.0.1:9/1",
        }

    def run(self) -> int:
        """Execute all steps; return how many blocks that were."""
        done = 0
        for step in steps_of(self._path.read_text()):
            if step.left_out != "not run":
                self._execute(step)
                done += not step.hidden
        return done

    def _execute(self, step: Step) -> None:
        code = step.code
        for word, value in self._replaced.items():
            code = code.replace(word, value)
        try:
            tree = ast.parse(code)
        except SyntaxError:
            self._apply_part(eval(f"{{{code}\n}}"), step)  # noqa: S307 (of our pages)
            return
        names = None if step.hidden else _names(tree)
        # As many lines as stand above it in the page, for the line numbers of an error.
        program = compile("\n" * (step.line - 1) + code, str(self._path), "exec")
        if names is None:
            exec(program, self._module.__dict__)  # noqa: S102
            if "urlpatterns" in code:
                sys.modules["mysite.urls"] = self._module
                override_settings(ROOT_URLCONF="mysite.urls").enable()
        else:
            self._apply(program, names, step)

    def _apply(self, program: types.CodeType, names: set[str], step: Step) -> None:
        made = {
            name: copy.deepcopy(getattr(settings, name)) for name in dir(settings) if name.isupper()
        }
        made["INSTALLED_APPS"] = list(DJANGOS_APPS)
        exec(program, made)  # noqa: S102
        changed = {name: made[name] for name in names}
        if "CACHEAPP" in changed:
            changed["CACHEAPP"] = {"STATE_DIR": self._place / "state", **changed["CACHEAPP"]}
        if changed.get("INSTALLED_APPS") == settings.INSTALLED_APPS:
            del changed["INSTALLED_APPS"]
        override_settings(**changed).enable()
        if "LOGGING" in changed:
            logging.config.dictConfig(changed["LOGGING"])
        self._check(step, uses_caches="CACHES" in changed)

    def _apply_part(self, part: dict[str, Any], step: Step) -> None:
        entry = settings.CACHES["default"]
        options = {**entry.get("OPTIONS", {}), **part.get("OPTIONS", {})}
        if str(entry["LOCATION"]).startswith(str(self._place)):  # the options of a file are fixed
            entry = {**entry, "LOCATION": f"{entry['LOCATION']}-{step.line}"}
        if "LOCATION" in part:
            options = part.get("OPTIONS", {})
        override_settings(CACHES={"default": {**entry, **part, "OPTIONS": options}}).enable()
        self._check(step, uses_caches=True)

    @staticmethod
    def _check(step: Step, *, uses_caches: bool) -> None:
        wrong = [found for found in checks.run_checks() if found.level >= checks.ERROR]
        if wrong:
            raise AssertionError(f"line {step.line}: {wrong}")
        for alias in settings.CACHES if uses_caches and not step.left_out else ():
            cache = caches[alias]
            cache.set("docs", {"line": step.line}, 60)
            cache.set("number", 1, 60)
            if (cache.get("docs"), cache.incr("number")) != ({"line": step.line}, 2):
                raise AssertionError(f"line {step.line}: {alias} does not keep what it was given")
            cache.delete_many(["docs", "number"])


def _report(path: Path, place: Path, redis_url: str) -> dict[str, Any]:
    try:
        return {"page": str(path), "done": Page(path, place, redis_url).run(), "error": ""}
    except BaseException:  # noqa: BLE001 (a page may do anything)
        return {"page": str(path), "done": 0, "error": traceback.format_exc()}


def main(directory: str, redis_url: str, *names: str) -> None:
    """Run each page in a process and a directory of its own."""
    configure(Path(directory))
    checks.run_checks()  # imports once what every page needs
    for number, name in enumerate(names):
        pid = os.fork()
        place = Path(directory) / str(number)
        if pid:
            os.waitpid(pid, 0)
            shutil.rmtree(place)  # what its caches reserved would be kept for three runs
            continue
        place.mkdir()
        override_settings(**_in(place)).enable()
        print(json.dumps(_report(Path(name), place, redis_url)), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
