"""Django's own tests of caches and of its cache middleware, run with the caches of this project."""
