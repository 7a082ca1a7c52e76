import pytest

from cacheapp.backends.redis.cluster.keys import is_own_key, key_slot, lock_keys, tagged_key

NAMES = ["", "}", "{", "{}", "a{b}c", "{t}a", ":", "ä", "\x1f}", "a}b{"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "p", "p:1", "}", "\ud800"])
def test_all_versions_of_a_key_are_in_one_slot(name: str, prefix: str) -> None:
    first, second = (
        tagged_key(name, prefix, version).encode(errors="surrogatepass") for version in (1, -20)
    )
    assert key_slot(first) == key_slot(second)
    assert first != second
    for key in (first, second):
        assert is_own_key(key, f"{prefix}:".encode(errors="surrogatepass"))


def test_the_hash_tag_of_a_user_still_brings_keys_into_one_slot() -> None:
    slots = {key_slot(tagged_key(f"{{user}}:{name}", "p", 1).encode()) for name in "abc"}
    assert len(slots) == 1


@pytest.mark.parametrize("stored", [b"p:1:key", b"p:{:key}", b"p:x{:key}", b"pp:1{:key}", b"p:1"])
def test_keys_of_another_form_are_not_taken_for_ones_own(stored: bytes) -> None:
    assert not is_own_key(stored, b"p:")


@pytest.mark.parametrize("name", [*NAMES, "p:1{:name}", "x\x1f"])
def test_a_lock_and_its_fence_are_in_one_slot(name: str) -> None:
    lock, fence = lock_keys(name)
    assert key_slot(lock) == key_slot(fence) == key_slot(lock + b"\x1fnonce")
    assert lock != fence


def test_no_two_names_have_the_same_lock() -> None:
    names = [*NAMES, "x}", "x\x1f}", "x:", "x\x1f:", "\x1f", "\x1f:}"]
    assert len({lock_keys(name)[0] for name in names}) == len(names)
