"""Run jobs: in a Gunicorn worker, in a terminal, or in Celery."""
