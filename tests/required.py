"""Decide whether a missing program or right fails the tests or skips them."""

import os
from typing import NoReturn

import pytest


def required() -> bool:
    """Return True in CI, where a missing package is a failure."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def skip_or_fail(message: str) -> NoReturn:
    """Skip the test; fail it in CI. The message names what is missing and how to get it."""
    if required():
        pytest.fail(message)
    pytest.skip(message)
