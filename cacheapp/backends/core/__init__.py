"""The parts common to all backends: Django's cache API on top of a `Store`."""
