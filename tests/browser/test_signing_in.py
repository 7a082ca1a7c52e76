"""Users in a browser: each sees the pages that it may open, and errors have pages too."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from cacheapp.processes.servers import GunicornServer
from tests.browser.watching import grave
from tests.system.conftest import ROOT

PASSWORD = "long enough to be one"  # noqa: S105 (made up)
USERS = f"""
from django.contrib.auth.models import Permission, User
viewer = User.objects.create_user("viewer", password="{PASSWORD}")
names = ["view_downloadjob", "view_stats"]
viewer.user_permissions.set(Permission.objects.filter(codename__in=names))
User.objects.create_superuser("chief", password="{PASSWORD}")
"""


@pytest.fixture(scope="module")
def with_users(shared_env: dict[str, str]) -> Iterator[GunicornServer]:
    """Four workers that grant nothing without a user."""
    env = {**shared_env, "DEMO": "0"}
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", USERS]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, check=True, capture_output=True)
    with GunicornServer("project.wsgi:application", ROOT, env) as server:
        yield server.start()


def _sign_in(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def _navigation(page: Page) -> list[str]:
    return page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts()


def test_a_user_sees_what_it_may_open_and_another_one_signs_in_from_a_refusal(
    new_context: Any, with_users: GunicornServer
) -> None:
    page: Page = new_context(base_url=with_users.url).new_page()
    page.goto("/check/")
    _sign_in(page, "viewer")
    expect(
        page.get_by_role("heading", name="Downloads")
    ).to_be_visible()  # the first that it may open
    assert _navigation(page) == ["Downloads", "Stats"]
    expect(page.get_by_text("New download")).to_have_count(0)
    page.goto("/check/")
    expect(page.get_by_role("heading", name="Forbidden")).to_be_visible()
    expect(page.get_by_text("cacheapp.run_check")).to_be_visible()
    assert _navigation(page) == ["Downloads", "Stats"]
    page.get_by_role("link", name="Sign in as another user").click()
    expect(page.get_by_text("You are signed in as viewer")).to_be_visible()
    _sign_in(page, "chief")
    expect(page.get_by_role("heading", name="Check", exact=True)).to_be_visible()
    assert _navigation(page) == ["Caches", "Machines", "Lab", "Check", "Downloads", "Stats"]


def test_a_form_that_is_refused_keeps_what_was_typed(
    new_context: Any, with_users: GunicornServer
) -> None:
    page: Page = new_context(base_url=with_users.url).new_page()
    page.goto("/login/?next=/downloads/")
    _sign_in(page, "chief")
    page.get_by_text("New download").click()
    typed = "https://files.example.com/a\nhttps://files.example.com/b"
    page.get_by_label("URLs, one per line").fill(typed)
    page.context.clear_cookies()  # the session ends meanwhile
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_label("What you sent")).to_have_value(typed)
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert grave(page) == []
    page.get_by_role("link", name="Sign in").click()
    _sign_in(page, "chief")
    expect(page.get_by_role("heading", name="Downloads")).to_be_visible()


def test_an_address_without_a_page_leads_back_to_the_others(
    new_context: Any, with_users: GunicornServer
) -> None:
    page: Page = new_context(base_url=with_users.url, color_scheme="dark").new_page()
    page.goto("/login/")
    _sign_in(page, "viewer")
    for path, heading in (("/nowhere/", "Not Found"), ("/downloads/actions", "Forbidden")):
        page.goto(path)
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        assert grave(page) == []
        page.get_by_role("link", name="Stats").click()
        expect(page.get_by_role("heading", name="Stats")).to_be_visible()
