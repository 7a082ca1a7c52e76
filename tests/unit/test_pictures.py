"""Every picture and chart of README and docs is as new as what it shows. `make pictures` makes them."""

import json
import re
import shutil
from pathlib import Path

import pytest

from cacheapp.lab.claims import claims_page
from cacheapp.lab.results import Result
from tests.browser import picture_sources, pictures
from tests.system.conftest import ROOT

ADVICE = "run: make pictures"
CLAIMS = ROOT / "docs" / "claims.md"
CHARTS = pictures.charts()


@pytest.mark.parametrize("path", CHARTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_chart_is_drawn_from_the_kept_data(path: Path) -> None:
    is_current = path.read_text() == CHARTS[path]
    assert is_current, ADVICE


def test_the_page_of_claims_has_the_kept_results() -> None:
    text = CLAIMS.read_text()
    command = re.findall(r"Made by `([^`]+)`", text)[0]
    raw = json.loads((pictures.LAB / "results.json").read_text())
    results = [Result.from_json(json.dumps(one)) for one in raw]
    is_current = claims_page(results, command) == text
    assert is_current, f"run: {command}"


def test_no_picture_of_a_page_is_older_than_the_page() -> None:
    found = picture_sources.older_than(picture_sources.kept(), picture_sources.digests())
    assert found == [], ADVICE


def test_every_picture_is_made_by_the_command() -> None:
    made = {path for path in CHARTS if path.parent == pictures.PICTURES}
    made |= {pictures.PICTURES / name for name in picture_sources.SHOWN}
    assert {*pictures.PICTURES.iterdir()} == {*made, picture_sources.MANIFEST}


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the templates and of the style sheet."""
    shutil.copytree(picture_sources.TEMPLATES, tmp_path / "templates")
    return tmp_path / "templates", Path(shutil.copy(picture_sources.STYLE, tmp_path))


def _older(copied: tuple[Path, Path]) -> list[str]:
    return picture_sources.older_than(picture_sources.digests(), picture_sources.digests(*copied))


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_changed_part_of_a_page_ages_the_pictures_that_show_it(copied: tuple[Path, Path]) -> None:
    _replace(copied[0] / "cacheapp" / "parts" / "show.html", "Counts lost", "Lost counts")
    assert _older(copied) == [
        "show-me.gif is older than cacheapp/parts/show.html",
        "caches.png is older than cacheapp/parts/show.html",
    ]


def test_a_changed_rule_ages_the_pictures_that_it_applies_to_and_no_others(
    copied: tuple[Path, Path],
) -> None:
    _replace(copied[1], ".lane line {", ".lane line { opacity: .5;")
    assert _older(copied) == [
        f"{it} is older than style.css" for it in ("show-me.gif", "caches.png")
    ]
    _replace(copied[1], ".lane line { opacity: .5;", ".lane line {")
    _replace(copied[1], ".claims .claim {", "/* wider */ .claims .claim { width: 50%;")
    assert _older(copied) == []
