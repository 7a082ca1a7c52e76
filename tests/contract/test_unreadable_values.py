"""Values that one reader cannot read: only what no cache of this project reads is removed."""

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import AppRegistryNotReady

from cacheapp.backends.core.shared import SharedCache
from cacheapp.processes.waiting import until
from tests.contract.conftest import Build

Read = Callable[[SharedCache], Any]


@dataclasses.dataclass
class Fragile:
    """Its reader may be in trouble."""

    content: str

    def __reduce__(self) -> Any:
        return _restore, (self.content,)


@dataclasses.dataclass
class OfToday:
    """A class that a later release removes."""

    content: str


trouble: list[BaseException] = []


def _restore(content: str) -> Fragile:
    if trouble:
        raise trouble[0]
    return Fragile(content)


READS: dict[str, Read] = {
    "get": lambda cache: cache.get("key", "missing"),
    "get_many": lambda cache: cache.get_many(["key"]).get("key", "missing"),
    "get_or_set": lambda cache: cache.get_or_set("key", "missing"),
    "aget": lambda cache: asyncio.run(cache.aget("key", "missing")),
    "aget_or_set": lambda cache: asyncio.run(cache.aget_or_set("key", "missing")),
    "incr": lambda cache: cache.incr("key"),
    "incr_version": lambda cache: cache.incr_version("key"),
}
ERRORS = [
    AppRegistryNotReady("apps are not loaded yet"),
    MemoryError("no room"),
    RecursionError("maximum depth"),
    ModuleNotFoundError("No module named 'shop'", name="shop"),
    ImportError("cannot import name 'x'"),
    AttributeError("of a class's own code"),
    KeyError("of a class's own code"),
    ValueError("of a class's own code"),
    EOFError("of a class's own code"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("read", list(READS))
def test_a_reader_in_trouble_gets_its_error_and_the_value_stays(
    cache: SharedCache, monkeypatch: pytest.MonkeyPatch, read: str, error: Exception
) -> None:
    cache.set("key", Fragile("content"), None)
    monkeypatch.setattr(sys.modules[__name__], "trouble", [error])
    with pytest.raises(type(error), match=str(error).strip("'")):
        READS[read](cache)
    monkeypatch.setattr(sys.modules[__name__], "trouble", [])
    assert cache.get("key") == Fragile("content")
    assert cache.stats()["values_rejected"] == 0


def test_a_stale_value_that_cannot_be_read_raises_without_taking_a_lease(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = build("inline", OPTIONS={"refresh": "inline"})
    cache.set("key", Fragile("old"), 0.001, stale=60)
    until(lambda: cache.get("key") is None, "the soft deadline")
    monkeypatch.setattr(sys.modules[__name__], "trouble", [AppRegistryNotReady()])
    with pytest.raises(AppRegistryNotReady):
        cache.get_or_set("key", "new", 10, stale=60)
    monkeypatch.setattr(sys.modules[__name__], "trouble", [])
    assert cache.get_or_set("key", "new", 10, stale=60) == "new"


def test_a_module_that_cannot_be_imported_yet_raises_and_the_value_stays(
    cache: SharedCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "early_models.py").write_text(
        "import sys\n"
        "from django.core.exceptions import AppRegistryNotReady\n"
        "if getattr(sys, 'apps_are_loading', False):\n"
        "    raise AppRegistryNotReady('Models are not loaded yet.')\n"
        "class Model:\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import early_models  # type: ignore[import-not-found]  # noqa: PLC0415 (made by this test)

    cache.set("key", early_models.Model(), None)
    monkeypatch.delitem(sys.modules, "early_models")
    monkeypatch.setattr(sys, "apps_are_loading", True, raising=False)
    with pytest.raises(AppRegistryNotReady):
        cache.get("key")
    monkeypatch.setattr(sys, "apps_are_loading", False)
    assert type(cache.get("key")).__name__ == "Model"


@pytest.mark.parametrize("read", ["get", "get_many", "get_or_set"])
def test_a_value_whose_class_is_gone_is_removed(
    cache: SharedCache, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    cache.set("key", OfToday("content"), None)
    monkeypatch.delattr(sys.modules[__name__], "OfToday")
    assert READS[read](cache) == "missing"
    assert cache.stats()["values_rejected"] == 1
    monkeypatch.undo()
    assert cache.get("key") == ("missing" if read == "get_or_set" else None)


OTHERS = {
    "not signed": {"signed": False},
    "signed": {"signed": True},
    "json": {"signed": False, "serializer": "json"},
    "compressed": {"signed": False, "compress_min_bytes": 0},
}


@pytest.mark.parametrize("read", ["get", "get_many", "aget", "incr", "incr_version"])
@pytest.mark.parametrize(
    ("old", "new"),
    [("not signed", "signed"), ("signed", "not signed"), ("not signed", "json")],
    ids=lambda name: name.replace(" ", "-"),
)
def test_releases_with_other_options_keep_each_others_values(
    build: Build, old: str, new: str, read: str
) -> None:
    before = build("same", OPTIONS=OTHERS[old])
    after = build("same", OPTIONS=OTHERS[new])
    before.set("key", ["the old one's"], None)
    if read.startswith("incr"):
        with pytest.raises(ValueError, match="not found"):
            READS[read](after)
    else:
        assert READS[read](after) == "missing"
    assert before.get("key") == ["the old one's"]
    assert not after.add("key", "lock")  # it is the old release's
    after.set("key", "the new one's")
    assert after.get("key") == "the new one's"
    assert before.get("key") is None
    assert after.get("key") == "the new one's"


@pytest.mark.parametrize("stale", [0, 60])
@pytest.mark.parametrize("read", ["get_or_set", "aget_or_set"])
def test_get_or_set_replaces_a_value_of_other_options_once(
    build: Build, read: str, stale: int
) -> None:
    before = build("same", OPTIONS=OTHERS["not signed"])
    after = build("same", OPTIONS=OTHERS["signed"])
    before.set("key", "old", 60, stale=stale)
    assert READS[read](after) == "missing"
    assert after.get("key") == "missing"
    assert before.get("key") is None


def test_compressed_and_plain_values_are_read_by_both(build: Build) -> None:
    before = build("same", OPTIONS=OTHERS["not signed"])
    after = build("same", OPTIONS=OTHERS["compressed"])
    before.set("key", "x" * 100)
    assert after.get("key") == "x" * 100
    after.set("key", "y" * 100)
    assert before.get("key") == "y" * 100
