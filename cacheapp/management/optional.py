"""Loads a command whose packages belong to an extra; without them, it is one clear error."""

import sys
from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cacheapp.errors import ExtraMissing
from cacheapp.extras import needed_for


def load_command(module: str, extra: str) -> type[BaseCommand]:
    """Return the module's `Command`, or one that only names the extra to install."""
    name = module.rpartition(".")[2].removesuffix("_command")
    try:
        with needed_for(f"manage.py {name}", extra):
            found: type[BaseCommand] = import_module(module).Command
    except ExtraMissing as exc:
        return type("Command", (_Unavailable,), {"help": str(exc)})
    return found


class _Unavailable(BaseCommand):
    def run_from_argv(self, argv: list[str]) -> None:
        """Exit before the options are parsed, which only the real command knows."""
        del argv
        sys.exit(f"CommandError: {self.help}")

    def handle(self, *_args: Any, **_options: Any) -> None:
        raise CommandError(self.help)
