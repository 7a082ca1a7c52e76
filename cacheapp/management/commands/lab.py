"""`manage.py lab`, if the packages of the extra `lab` are installed."""

from cacheapp.management.optional import load_command

Command = load_command("cacheapp.management.lab_command", "lab", "gunicorn")
