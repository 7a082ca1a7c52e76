"""A small Django project as many have one, for the lab's private Gunicorn: its cache is `default`."""
