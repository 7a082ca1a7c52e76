"""The figures in README and docs are those of the kept results."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import pages
from benchmarks.__main__ import KEPT, NAMES, USUAL


@pytest.mark.parametrize("document", pages.PAGES, ids=lambda document: document.name)
def test_a_page_has_the_figures_of_the_kept_results(document: Path) -> None:
    text = document.read_text()
    assert pages.names_in(text)
    assert pages.filled(text) == text, "run: python -m benchmarks.pages"


def test_every_region_is_in_one_page() -> None:
    found = [name for page in pages.PAGES for name in pages.names_in(page.read_text())]
    assert sorted(found) == sorted(pages.REGIONS)


def test_a_new_result_changes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(pages.RESULTS, tmp_path / "results")
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    changed = pages.read("hit_ratio")
    changed["rows"][0]["LMDBCache"] = 0.9876
    (tmp_path / "results" / "hit_ratio.json").write_text(json.dumps(changed))
    text = pages.PAGES[1].read_text()
    assert "0.9876" not in text
    assert "0.9876" in pages.filled(text)


def test_what_is_not_marked_stays() -> None:
    text = "before\n<!-- figures: speed -->\nold\n<!-- end of figures -->\nafter\n"
    found = pages.filled(text)
    assert found.startswith("before\n<!-- figures: speed -->\n\nA `get` of a small dict")
    assert found.endswith("\n<!-- end of figures -->\nafter\n")
    assert "old" not in found


def test_the_usual_run_has_every_benchmark_and_keeps_what_pages_show() -> None:
    assert set(USUAL) == set(NAMES)
    assert set(KEPT) <= set(NAMES)
    shown = {
        *("disk_cache", "hit_ratio", "lmdb_cache", "observing", "redis_cache", "signing"),
        *("near_cache", "slow_line"),
    }
    assert set(KEPT.values()) == shown
