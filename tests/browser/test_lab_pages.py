"""The lab and the check in a browser: start, watch and stop a run; results are kept."""

import os
import subprocess
import sys

from playwright.sync_api import expect

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


def test_an_experiment_is_started_seen_running_and_stopped(watched: Watched) -> None:
    page = watched.page
    page.goto("/lab/")
    page.get_by_role("button", name="Run Waiting").click()
    region = page.get_by_role("region", name="Current run")
    expect(region).to_contain_text("waiting", timeout=PATIENCE_MS)
    expect(region).not_to_contain_text("starting", timeout=PATIENCE_MS)
    expect(page.get_by_role("button", name="Run Waiting")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    expect(region).to_have_count(0, timeout=PATIENCE_MS)
    expect(page.get_by_text("was stopped")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_role("button", name="Run Waiting")).to_be_enabled()


def test_a_result_from_a_terminal_is_shown_with_its_chart_to_everybody(
    watched: Watched, shared_env: dict[str, str]
) -> None:
    """The chart is an image: it has a policy of its own, and cannot act in the page."""
    command = [sys.executable, "manage.py", "lab", "starting", "--small"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **shared_env}, check=False)
    page = watched.page
    page.goto("/lab/")
    chart = page.get_by_role("img", name="Chart: Starting")
    expect(chart).to_be_visible()
    assert chart.evaluate("image => image.naturalWidth") > 100
    assert grave(page) == []
