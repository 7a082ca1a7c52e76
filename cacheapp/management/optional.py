"""Loads a command whose packages belong to an extra; without them, it is one clear error."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cacheapp.errors import ExtraMissing
from cacheapp.extras import missing, needed_for


def load_command(module: str, extra: str, *programs: str) -> type[BaseCommand]:
    """Return the module's `Command`, or one that only names the extra to install.

    `programs` are packages that the command runs and does not import.
    """
    feature = f"manage.py {module.rpartition('.')[2].removesuffix('_command')}"
    for package in programs:
        if find_spec(package) is None:
            return _unavailable(f"{feature} {missing(package, extra)}")
    try:
        with needed_for(feature, extra):
            found: type[BaseCommand] = import_module(module).Command
    except ExtraMissing as exc:
        return _unavailable(str(exc))
    return found


def _unavailable(why: str) -> type[BaseCommand]:
    return type("Command", (_Unavailable,), {"help": why})


class _Unavailable(BaseCommand):
    def run_from_argv(self, argv: list[str]) -> None:
        """Exit before the options are parsed, which only the real command knows."""
        del argv
        sys.exit(f"CommandError: {self.help}")

    def handle(self, *_args: Any, **_options: Any) -> None:
        raise CommandError(self.help)
