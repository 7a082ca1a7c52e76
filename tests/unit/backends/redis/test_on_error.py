import inspect

import pytest

from cacheapp.backends import RedisCache
from cacheapp.backends.core.shared import SharedCache

METHODS = [
    *("get", "get_many", "has_key", "ttl", "pttl", "iter_keys", "get_or_set", "aget_or_set"),
    *("set", "set_many", "touch", "persist", "delete", "delete_many"),
    *("add", "incr", "incr_version"),
]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_under_the_error_policy_keeps_its_signature_and_documentation(name: str) -> None:
    ours, shared = getattr(RedisCache, name), getattr(SharedCache, name)
    assert ours is not shared
    assert ours.__doc__ == shared.__doc__
    assert inspect.signature(ours) == inspect.signature(shared)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(shared)
    assert inspect.isgeneratorfunction(ours) == inspect.isgeneratorfunction(shared)


def test_the_error_policy_leaves_other_shared_caches_alone() -> None:
    assert "__wrapped__" not in vars(SharedCache.get)
