"""The examples of docs/howto/compute-once.md and limits.md hold on every shared backend."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.test import RequestFactory

from cacheapp import clock
from cacheapp.backends.core.shared import SharedCache

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGES = [HOWTO / "compute-once.md", HOWTO / "limits.md"]


@pytest.fixture
def shop(cache: SharedCache) -> dict[str, Any]:
    """Everything that the examples define, run from top to bottom as one module."""
    blocks = [
        (page.name, block)
        for page in PAGES
        for block in re.findall(
            r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
        )
    ]
    assert len(blocks) == 11
    names: dict[str, Any] = {"__name__": "shop.prices"}
    for number, (page, block) in enumerate(blocks, 1):
        exec(compile(block, f"{page}, example {number}", "exec"), names)  # noqa: S102
    return names


def test_the_examples_of_get_or_set_and_limit_hold(shop: dict[str, Any]) -> None:
    assert shop["found"] == {"sold": 7}
    assert shop["attempt"].used == 1


def test_the_examples_of_cached_hold(cache: SharedCache, shop: dict[str, Any]) -> None:
    assert cache.get(shop["price"].key_for(7)) == "9.99 EUR"
    request = SimpleNamespace(user=SimpleNamespace(pk=3))
    assert shop["basket"](request) == ["book"]
    assert cache.get(shop["basket"].key_for(request)) == ["book"]
    asyncio.run(shop["change"]())
    assert cache.get(shop["rating"].key_for(7)) == 4.5


def test_the_examples_of_throttle_hold(
    shop: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = clock.wall_s()
    monkeypatch.setattr(clock, "wall_s", lambda: now_s)  # or a minute might end in between
    login, factory = shop["login"], RequestFactory()
    assert [login(factory.post("/")).status_code for _ in range(6)] == [200] * 5 + [429]
    assert login(factory.get("/")).status_code == 200
    request = factory.get("/")
    request.user = SimpleNamespace(pk=3)  # type: ignore[assignment]
    assert shop["search"](request).content == b"results"
    for _ in range(5):
        assert shop["sign_in"](factory.post("/")).content == b"welcome"
    with pytest.raises(PermissionDenied):
        shop["sign_in"](factory.post("/"))
    assert shop["sign_in"](factory.get("/")).content == b"welcome"
