"""The CACHEAPP setting: typed values, and all mistakes reported at once."""

from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from pytest_django.fixtures import Settings

from cacheapp.access_settings import AllowedBucket
from cacheapp.conf import conf, read, state_dir


def test_defaults_are_safe() -> None:
    found, mistakes = read({})
    assert mistakes == []
    assert found.demo is False
    assert found.download_origins == ()
    assert found.download_root is None


@pytest.mark.django_db  # Django 6.1's own checks use the database
def test_every_mistake_is_named_at_once(settings: Settings) -> None:
    settings.CACHES = dict(settings.CACHES)  # drops the caches that are created under this setting
    settings.CACHEAPP = {"DEMO": 1, "DOWNLOAD_MAX_THREADS": 0, "TYPO": True, "STATE_DIR": "var"}
    with pytest.raises(ImproperlyConfigured) as caught:
        conf()
    for part in (
        "CACHEAPP['DEMO'] is 1; expected True or False",
        "CACHEAPP['DOWNLOAD_MAX_THREADS'] is 0; expected a whole number of at least 1",
        "CACHEAPP['TYPO'] is not a setting; expected one of API_TOKENS, DEMO,",
        "CACHEAPP['STATE_DIR'] is 'var'; expected None or an absolute path",
    ):
        assert part in str(caught.value)
    errors = [message for message in run_checks() if message.id == "cacheapp.E001"]
    assert len(errors) == 4


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://files.example", "http://files.example:80"),
        ("https://files.example/", "https://files.example:443"),
        ("https://files.example:8443", "https://files.example:8443"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_an_origin_gets_its_port(value: str, expected: str) -> None:
    found, mistakes = read({"DOWNLOAD_ORIGINS": [value]})
    assert (found.download_origins, mistakes) == ((expected,), [])


@pytest.mark.parametrize(
    "value",
    [
        "ftp://files.example",
        "files.example",
        "https://files.example/path",
        "https://user@files.example",
        "https://files.example:port",
        "https://",
        7,
    ],
)
def test_what_is_no_origin_is_refused(value: object) -> None:
    _found, mistakes = read({"DOWNLOAD_ORIGINS": [value]})
    assert len(mistakes) == 1
    assert repr(value) in mistakes[0]


def test_a_rate_may_have_a_unit() -> None:
    found, mistakes = read({"DOWNLOAD_MAX_RATE": "10MiB/s", "DOWNLOAD_MAX_PROCESS_RATE": None})
    assert (found.download_max_rate, found.download_max_process_rate) == (10 * 2**20, None)
    assert mistakes == []
    (mistake,) = read({"DOWNLOAD_MAX_RATE": "fast"})[1]
    assert mistake.startswith("CACHEAPP['DOWNLOAD_MAX_RATE'] is 'fast'; expected None or bytes per")


def test_the_setting_is_read_anew_when_it_is_overridden(settings: Settings) -> None:
    settings.CACHEAPP = {"DEMO": True}
    assert conf().demo is True
    settings.CACHEAPP = {"DEMO": False}
    assert conf().demo is False


def test_without_a_state_dir_one_is_named_after_user_and_project(settings: Settings) -> None:
    settings.CACHEAPP = {}
    found = state_dir()
    assert found == state_dir()
    assert found.name.startswith("cacheapp-")
    settings.BASE_DIR = Path("/elsewhere")
    assert state_dir() != found


PLACE = {"endpoint": "https://s3.example.com", "region": "eu-1", "anonymous": True}


def test_buckets_are_read_with_their_places_or_without() -> None:
    found, mistakes = read({"DOWNLOAD_BUCKETS": {"s3://abc": PLACE, "s3://bcd/pub/": {}}})
    assert mistakes == []
    assert found.download_buckets == (
        AllowedBucket("abc", "", "https://s3.example.com", "eu-1", anonymous=True),
        AllowedBucket("bcd", "pub/"),
    )
    assert read({"DOWNLOAD_BUCKETS": ["s3://abc/"]})[0].download_buckets == (
        AllowedBucket("abc", ""),
    )


@pytest.mark.parametrize(
    "value",
    [
        "s3://abc",
        ["a"],
        ["s3://"],
        ["s3://abc/pub"],
        ["s3://abc?x"],
        ["https://abc/"],
        [7],
        {"s3://abc": "https://s3.example.com"},
        {"s3://abc": {"url": "https://s3.example.com"}},
        {"s3://abc": {"endpoint": 7}},
        {"s3://abc": {"endpoint": "s3.example.com"}},
        {"s3://abc": {"anonymous": "yes"}},
    ],
    ids=repr,
)
def test_what_is_no_bucket_is_refused(value: object) -> None:
    (mistake,) = read({"DOWNLOAD_BUCKETS": value})[1]
    assert mistake.startswith(f"CACHEAPP['DOWNLOAD_BUCKETS'] is {value!r}; expected ")


@pytest.mark.parametrize("value", ["Celery", "", None, ["celery"]], ids=repr)
def test_who_runs_downloads_is_one_of_two(value: object) -> None:
    assert read({"DOWNLOAD_RUNNER": value})[1] == [
        f"CACHEAPP['DOWNLOAD_RUNNER'] is {value!r}; expected one of 'worker', 'celery', 'tasks'"
    ]
