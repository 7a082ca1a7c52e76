"""A site whose pages render without collectstatic, and whose new jobs stay queued."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from cacheapp.downloads.runners import coordinator as hosting
from tests.integration.views.download_jobs import URL, VERBS
from tests.integration.views.users import staff


@pytest.fixture
def idle_site(settings: Settings, tmp_path: Path) -> Iterator[None]:
    """Serve on `localhost`, and run no job."""
    settings.ALLOWED_HOSTS = ["localhost"]
    settings.SECURE_SSL_REDIRECT = False
    (tmp_path / "static").mkdir()
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    hosting.coordinator().close(0)
    yield
    hosting._forget()  # noqa: SLF001 (as a fork does)


@pytest.fixture
def downloads_site(idle_site: None, settings: Settings, tmp_path: Path) -> None:
    """The same, which downloads from `URL` to a directory of the test."""
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DOWNLOAD_ROOT": tmp_path / "downloads",
        "DOWNLOAD_ORIGINS": [URL],
    }


@pytest.fixture
def ann() -> User:
    """A user who may see and change download jobs."""
    return staff("ann", *VERBS)
