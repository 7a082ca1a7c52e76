"""The project's settings with Django's Tasks framework and a queue in the database (Django 6)."""

from project.settings import *  # noqa: F403

INSTALLED_APPS += ["django_tasks_db"]  # noqa: F405
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
