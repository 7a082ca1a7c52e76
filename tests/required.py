"""Whether what a test needs, and cannot be fetched without root, has to be there."""

import os


def required() -> bool:
    """Return whether lacking it is a failure: in CI, and not on somebody's own machine."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}
