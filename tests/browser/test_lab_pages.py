"""The lab and the check in a browser: start, watch and stop a run; results are kept."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from cacheapp.processes.servers import GunicornServer
from tests.browser.watching import Watched, grave
from tests.system.conftest import ROOT

PATIENCE_MS = 120_000


def test_a_check_finds_locmem_broken_and_draws_why(watched: Watched) -> None:
    page = watched.page
    page.goto("/check/")
    for alias in ("lmdb", "disk", "redis"):
        page.get_by_role("checkbox", name=alias).uncheck()
    page.get_by_label("Seconds per workload").select_option("0.5")
    page.get_by_role("button", name="Check").click()
    region = page.get_by_role("region", name="Current run")
    expect(region).to_be_visible(timeout=PATIENCE_MS)
    expect(region).to_have_count(0, timeout=PATIENCE_MS)
    order = page.get_by_role("row", name="one order")
    expect(order).to_contain_text("BROKEN", timeout=PATIENCE_MS)
    own = page.get_by_role("row", name="own writes seen")
    expect(own).to_contain_text("HOLDS")  # the session that wrote does read it
    drawing = page.get_by_role("img", name="The calls of each process").first
    expect(drawing).to_be_visible()
    assert drawing.evaluate("image => image.naturalWidth") > 100
    page.get_by_text("The same as text").first.click()
    assert grave(page) == []
    expect(page.get_by_label("Timeline as text").first).to_contain_text("p")


SELECT = """() => {
  document.querySelector("#of-starting a").isKept = true;
  getSelection().selectAllChildren(document.querySelector("#of-starting .claim"));
}"""


def test_a_live_update_keeps_what_a_person_selected_and_opened(watched: Watched) -> None:
    page = watched.page
    page.goto("/lab/waiting/")
    page.get_by_role("button", name="Run at the article").click()
    region = page.get_by_role("region", name="Current run")
    expect(region).to_contain_text("Waiting: downloads")
    page.get_by_text("The measured code").click()
    _await_an_update(page)
    expect(page.get_by_label("The code of Waiting")).to_be_visible()
    page.goto("/lab/")
    page.get_by_role("checkbox", name="Select Starting").check()
    page.evaluate(SELECT)
    _await_an_update(page)
    assert page.get_by_role("checkbox", name="Select Starting").is_checked()
    assert page.evaluate("document.querySelector('#of-starting a').isKept")
    assert "takes longer" in page.evaluate("getSelection().toString()")
    expect(page.locator("#of-waiting .head")).to_contain_text("running")
    expect(page.get_by_role("button", name="Run all")).to_be_hidden()
    page.get_by_role("button", name="Cancel the run").click()
    expect(region).to_have_count(0)
    expect(page.get_by_text("was cancelled")).to_be_visible()
    expect(page.get_by_role("button", name="Run all")).to_be_enabled()


def _await_an_update(page: Page) -> None:
    """Wait until the duration of the run has changed."""
    figures = page.get_by_role("region", name="Current run").locator(".num")
    expect(figures).not_to_have_text(figures.inner_text())


def test_run_all_counts_the_experiments_and_is_refused_to_a_second_visitor(
    watched: Watched, new_context: Any, site: GunicornServer
) -> None:
    """Without JavaScript, a second visitor has an old page whose button is still there."""
    other = new_context(base_url=site.url, java_script_enabled=False).new_page()
    other.goto("/lab/")
    other.get_by_role("checkbox", name="Select Computing").check()
    page = watched.page
    page.goto("/lab/")
    page.get_by_role("button", name="Run all").click()
    region = page.get_by_role("region", name="Current run")
    expect(region).to_contain_text(re.compile(r"experiment \d of 8"))
    expect(page.locator("#of-what-breaks .head")).to_contain_text("next")
    other.get_by_role("button", name="Run selected").click()
    expect(other.get_by_role("alert")).to_contain_text("only one experiment or check runs")
    assert other.get_by_role("checkbox", name="Select Computing").is_checked()
    other.get_by_role("button", name="Cancel the run").click()
    expect(region).to_have_count(0)
    expect(page.get_by_text("The last run of all experiments was cancelled")).to_be_visible()


def test_a_claim_leads_to_its_charts_at_the_full_width(
    watched: Watched, shared_env: dict[str, str]
) -> None:
    command = [sys.executable, "manage.py", "lab", "process-races", "--small"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **shared_env}, check=False)
    page = watched.page
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto("/lab/")
        expect(page.locator("#of-process-races")).to_contain_text("DOES NOT HOLD")
        page.get_by_role("link", name="Races between processes").click()
        chart = page.get_by_role("img", name="lost of")
        expect(chart).to_be_visible()
        panels = page.locator(".panels")
        shown, card = chart.bounding_box(), panels.bounding_box()
        assert shown is not None
        assert card is not None
        assert shown["width"] == pytest.approx(card["width"], abs=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert grave(page) == []
    colours = {
        kind: chart.locator(f"rect.{kind}").first.evaluate("bar => getComputedStyle(bar).fill")
        for kind in ("right", "broken")
    }
    assert len(set(colours.values())) == 2
    ours = chart.locator("text", has_text="disk").last
    assert "✓" in ours.evaluate("name => name.nextElementSibling.textContent")
