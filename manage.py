#!/usr/bin/env python3
"""Run Django's management commands for this project."""

import os
import sys


def main() -> None:
    """Run the command in `sys.argv`."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    from django.core.management import execute_from_command_line  # noqa: PLC0415 (after the setting)

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
