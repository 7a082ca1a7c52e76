"""Test that inheritance of the backends stays shallow."""

import pytest

from cacheapp import backends


@pytest.mark.parametrize("name", backends.__all__)
def test_a_backend_has_at_most_five_of_our_classes_in_its_mro(name: str) -> None:
    ours = [cls for cls in getattr(backends, name).__mro__ if cls.__module__.startswith("cacheapp")]
    assert len(ours) <= 5, ours
