"""The models of cacheapp, imported here so that Django finds them."""

from cacheapp.demo.models import Demo

__all__ = ["Demo"]
