"""Each system check, by its id."""

import os
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.checks import run_checks
from django.db import connections
from pytest_django.fixtures import Settings

from cacheapp.checks.gunicorn import check_user_of_workers
from cacheapp.downloads.checks import check_database
from tests.other_user import groups_of_a_team, reachable_directory

pytestmark = pytest.mark.django_db  # Django 6.1's own checks use the database


LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
DUMMY = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
urlpatterns: list[Any] = []
URL = "redis://127.0.0.1:6379/0"


def _redis(prefix: str = "mine", url: str = URL, **options: Any) -> dict[str, Any]:
    return {
        "BACKEND": "cacheapp.backends.RedisCache",
        "LOCATION": url,
        "KEY_PREFIX": prefix,
        "OPTIONS": options,
    }


def _disk(location: Path, **options: Any) -> dict[str, Any]:
    return {
        "BACKEND": "cacheapp.backends.DiskCache",
        "LOCATION": str(location),
        "OPTIONS": options,
    }


def _found(*, deploy: bool = False) -> dict[str, str]:
    messages = run_checks(include_deployment_checks=deploy)
    return {str(found.id): found.msg for found in messages if str(found.id).startswith("cacheapp")}


@pytest.fixture(autouse=True)
def _four_workers(settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "WORKERS": 4, "THREADS": 8}


def test_the_project_itself_is_clean() -> None:
    assert _found(deploy=True) == {}


@pytest.mark.parametrize("local", [LOCMEM, DUMMY], ids=["locmem", "dummy"])
def test_w001_a_default_cache_in_one_process(settings: Settings, local: dict[str, Any]) -> None:
    settings.CACHES = {"default": local}
    assert "will differ from worker to worker" in _found()["cacheapp.W001"]
    settings.CACHEAPP = {**settings.CACHEAPP, "WORKERS": 1}
    assert _found(deploy=True) == {}
    settings.CACHEAPP = {**settings.CACHEAPP, "WORKERS": None}
    assert _found() == {}
    assert list(_found(deploy=True)) == ["cacheapp.W001"]


def test_w002_sessions_in_one_process(settings: Settings, tmp_path: Path) -> None:
    settings.CACHES = {"default": _disk(tmp_path), "local": LOCMEM}
    settings.SESSION_CACHE_ALIAS = "local"
    assert _found() == {}
    for engine in ("cache", "cached_db"):
        settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
        assert "sessions will differ" in _found()["cacheapp.W002"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RATELIMIT_USE_CACHE", "local"),
        ("AXES_CACHE", "local"),
        ("REST_FRAMEWORK", {"DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.X"]}),
    ],
)
def test_w003_a_rate_limiter_in_one_process(settings: Settings, name: str, value: Any) -> None:
    settings.CACHES = {"default": LOCMEM, "local": LOCMEM}
    setattr(settings, name, value)
    assert "rate limits" in _found()["cacheapp.W003"]


def test_w004_unsigned_pickles_on_a_server(settings: Settings) -> None:
    settings.CACHES = {"default": _redis(signed=False)}
    assert (
        "anyone who can write to the server can run code in this project"
        in _found()["cacheapp.W004"]
    )
    settings.CACHES = {"default": _redis(signed=False, serializer="json")}
    assert _found() == {}


def test_w005_a_pool_smaller_than_the_threads(settings: Settings) -> None:
    settings.CACHES = {"default": _redis(max_connections=4)}
    assert "at most 4 connections for 8 threads" in _found()["cacheapp.W005"]
    settings.CACHES = {"default": _redis(max_connections=8)}
    assert _found() == {}


@pytest.mark.parametrize("argument", ["cache", "cache_config"])
def test_w006_client_side_caching(settings: Settings, argument: str) -> None:
    stock = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": URL,
        "OPTIONS": {"CONNECTION_POOL_KWARGS": {argument: object()}},
    }
    settings.CACHES = {"default": stock}
    assert "client-side caching" in _found()["cacheapp.W006"]


def test_w007_no_prefix_on_a_server(settings: Settings) -> None:
    settings.CACHES = {"default": _redis(prefix="")}
    assert "has no KEY_PREFIX" in _found()["cacheapp.W007"]
    settings.CACHES = {"default": _redis(prefix="", owns_database=True)}
    assert _found() == {}


def test_w009_more_streams_than_threads(settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_STREAMS": 8}
    assert "it serves at most 7 streams, to keep one thread free" in _found()["cacheapp.W009"]
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_STREAMS": 7}
    assert _found() == {}


def test_e011_downloads_without_time_zones(settings: Settings) -> None:
    settings.USE_TZ = False
    assert set(_found()) == {"cacheapp.E011"}


def test_w018_a_database_on_which_downloads_are_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "vendor", "mysql")
    (found,) = check_database()
    assert found.id == "cacheapp.W018"
    assert "DATABASES['default'], which is mysql" in found.msg
    monkeypatch.setattr(connections["default"], "vendor", "postgresql")
    assert check_database() == []


def test_w014_a_quota_that_is_smaller_than_a_job(settings: Settings) -> None:
    limits = {"DOWNLOAD_MAX_FILES": 100, "DOWNLOAD_MAX_USER_FILES": 99}
    settings.CACHEAPP = {**settings.CACHEAPP, **limits}
    assert "is 99, less than DOWNLOAD_MAX_FILES, which is 100" in _found()["cacheapp.W014"]
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_MAX_USER_FILES": 100}
    assert _found() == {}


def test_a_project_without_urls_can_be_checked(settings: Settings) -> None:
    del settings.ROOT_URLCONF
    assert _found(deploy=True) == {}


def test_w010_pages_without_their_script(settings: Settings) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_htmx"]
    assert "'django_htmx' is not in INSTALLED_APPS" in _found()["cacheapp.W010"]
    settings.ROOT_URLCONF = __name__  # a project that uses only the caches
    assert _found() == {}


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("/accounts/login/", True),
        ("sign-in", True),
        ("login", False),
        ("/admin/login/?from=pages", False),
        ("https://sso.example/login", False),
    ],
)
def test_w025_a_page_to_sign_in_that_does_not_exist(
    settings: Settings, url: str, *, warned: bool
) -> None:
    settings.LOGIN_URL = url
    found = _found()
    assert set(found) == ({"cacheapp.W025"} if warned else set())
    assert not warned or found["cacheapp.W025"].startswith(
        f"LOGIN_URL is '{url}', which the URLconf"
    )
    settings.ROOT_URLCONF = __name__  # a project that uses only the caches
    assert _found() == {}


@pytest.mark.parametrize(
    ("other", "warned"),
    [
        (_redis("mine:2"), True),
        (_redis("mine", max_connections=50), True),
        (_redis("mine"), False),
        (_redis("mine2"), False),
        (_redis("mine:2", url="redis://127.0.0.1:6379/1"), False),
    ],
    ids=["begun by it", "the same", "one cache by two names", "longer", "another database"],
)
def test_w008_a_prefix_that_takes_in_anothers_keys(
    settings: Settings, other: dict[str, Any], *, warned: bool
) -> None:
    settings.CACHES = {"default": _redis("mine"), "other": other}
    assert ("cacheapp.W008" in _found()) is warned


def test_e003_a_directory_on_a_network_filesystem(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CACHES = {"default": _disk(tmp_path / "cache")}
    assert _found() == {}
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"30 1 0:40 / {tmp_path} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr("cacheapp.backends.local.filesystem._MOUNTS", mounts)
    assert "on a network filesystem (nfs4)" in _found()["cacheapp.E003"]


def test_e004_a_directory_that_others_can_write_to(settings: Settings, tmp_path: Path) -> None:
    settings.CACHES = {"default": _disk(tmp_path / "open")}
    (tmp_path / "open").mkdir(mode=0o700)
    assert _found() == {}
    (tmp_path / "open").chmod(0o777)
    assert "is world-writable (mode 0777)" in _found()["cacheapp.E004"]


def test_the_directory_of_a_copy_is_checked_too(settings: Settings, tmp_path: Path) -> None:
    near = {"BACKEND": "cacheapp.backends.NearCache", "LOCATION": "redis://localhost"}
    settings.CACHES = {"default": {**near, "OPTIONS": {"copy": str(tmp_path / "open")}}}
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    assert "is world-writable (mode 0777)" in _found()["cacheapp.E004"]


@pytest.mark.parametrize("kind", ["LMDBCache", "DiskCache", "NearCache"])
def test_w024_a_location_that_depends_on_the_working_directory(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    entry: dict[str, Any] = {"LOCATION": "unique-snowflake"}
    if kind == "NearCache":
        entry = _redis(copy="unique-snowflake")
    settings.CACHES = {"default": {**entry, "BACKEND": f"cacheapp.backends.{kind}"}}
    assert _found() == {
        "cacheapp.W024": "CACHES['default'] keeps its files in 'unique-snowflake', a relative path: "
        "processes that start in different directories do not share them."
    }


def test_w015_a_directory_that_this_user_cannot_create(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CACHES = {"default": _disk(tmp_path / "site" / "cache")}
    assert _found() == {}
    refused = [tmp_path / "site", tmp_path]  # root may write anywhere, so the kernel cannot refuse
    monkeypatch.setattr(os, "access", lambda path, *_args, **_kwargs: path not in refused)
    found = _found()["cacheapp.W015"]
    assert f"cannot create {tmp_path}/site/cache: {tmp_path} is not writable for it" in found
    (tmp_path / "site").mkdir(mode=0o700)
    assert f"{tmp_path}/site is not writable for it" in _found()["cacheapp.W015"]


@pytest.mark.parametrize("mode", [0o770, 0o775, 0o2775], ids=oct)
def test_e004_a_parent_that_a_group_can_write_to(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    groups_of_a_team(monkeypatch)
    settings.CACHES = {"default": _disk(tmp_path / "site" / "cache")}
    (tmp_path / "site").mkdir()
    (tmp_path / "site").chmod(mode)
    found = _found()["cacheapp.E004"]
    assert f"{tmp_path}/site (on the way to {tmp_path}/site/cache) is group-writable" in found
    assert f"run: chmod go-w {tmp_path}/site" in found


@pytest.mark.parametrize("name", ["STATE_DIR", "DOWNLOAD_ROOT"])
def test_e007_a_directory_of_ours_that_others_can_write_to(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, name: tmp_path / "open" / "own"}
    (tmp_path / "open").mkdir()
    assert _found() == {}
    (tmp_path / "open").chmod(0o777)
    found = _found()["cacheapp.E007"]
    assert found.startswith(f"CACHEAPP['{name}']: {tmp_path}/open (on the way to")
    assert "is world-writable (mode 0777)" in found


@pytest.mark.parametrize("name", ["STATE_DIR", "DOWNLOAD_ROOT"])
def test_w015_a_directory_of_ours_that_this_user_cannot_create(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, name: tmp_path / "site" / "own"}
    assert _found() == {}
    monkeypatch.setattr(os, "access", lambda path, *_args, **_kwargs: path != tmp_path)
    assert _found()["cacheapp.W015"] == (
        f"CACHEAPP['{name}']: user {os.geteuid()} cannot create {tmp_path}/site/own: {tmp_path} is "
        "not writable for it."
    )


def test_w011_a_database_that_others_can_open(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reachable_directory() as place:
        _check_modes(settings, place / "data" / "db.sqlite3", monkeypatch)


def _check_modes(settings: Settings, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    path.touch()
    path.chmod(0o644)
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", path)
    assert f"other users can access {path} (mode 0644)" in _found(deploy=True)["cacheapp.W011"]
    path.chmod(0o600)
    assert _found(deploy=True) == {}
    path.chmod(0o644)
    path.parent.chmod(0o700)
    assert _found(deploy=True) == {}


def test_w011_a_database_that_others_can_replace(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data" / "db.sqlite3"
    path.parent.mkdir()
    path.touch(mode=0o600)
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", path)
    assert _found(deploy=True) == {}
    path.parent.chmod(0o777)
    reason = f"{path.parent} is world-writable (mode 0777); run: chmod go-w {path.parent}"
    assert f"another user could replace {path}: {reason}" in _found(deploy=True)["cacheapp.W011"]


def test_e002_an_entry_with_mistakes(settings: Settings, tmp_path: Path) -> None:
    settings.CACHES = {
        "default": _disk(tmp_path, colour="red"),
        "other": {**_redis(), "TIMEOUT": "soon"},
    }
    messages = [found for found in run_checks() if found.id == "cacheapp.E002"]
    assert len(messages) == 2
    assert "CACHES['default']: OPTIONS['colour'] is not an option" in messages[0].msg
    assert "CACHES['other']: TIMEOUT is 'soon'" in messages[1].msg


def test_w012_settings_of_django_redis_that_are_not_read(settings: Settings) -> None:
    settings.DJANGO_REDIS_IGNORE_EXCEPTIONS = True
    settings.CACHES = {"default": LOCMEM | {"LOCATION": "x"}}
    settings.CACHEAPP = {**settings.CACHEAPP, "WORKERS": 1}
    assert _found() == {}
    settings.CACHES = {"default": _redis()}
    assert "DJANGO_REDIS_IGNORE_EXCEPTIONS is set" in _found()["cacheapp.W012"]
    settings.DJANGO_REDIS_IGNORE_EXCEPTIONS = False  # as it is without the setting
    assert _found() == {}


def test_w004_while_values_of_django_redis_are_read(settings: Settings) -> None:
    settings.CACHES = {"default": _redis(reads_django_redis=True)}
    assert "trusts unsigned values" in _found()["cacheapp.W004"]


@pytest.mark.parametrize(
    ("other", "warned"), [("here", True), ("elsewhere", False)], ids=["shared", "its-own"]
)
def test_w020_a_limit_of_entries_that_other_aliases_share(
    settings: Settings, tmp_path: Path, other: str, *, warned: bool
) -> None:
    lmdb = {
        "BACKEND": "cacheapp.backends.LMDBCache",
        "LOCATION": str(tmp_path / "here"),
        "OPTIONS": {"MAX_ENTRIES": 1000},
    }
    settings.CACHES = {
        "default": lmdb,
        "other": lmdb | {"LOCATION": str(tmp_path / other), "KEY_PREFIX": "other"},
    }
    found = _found()
    assert set(found) == ({"cacheapp.W020"} if warned else set())
    assert not warned or "share ('default')" in found["cacheapp.W020"]


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ({"OPTIONS": {"CULL_FREQUENCY": 4}}, "OPTIONS['CULL_FREQUENCY'] is not an option here"),
        ({"OPTIONS": {"db": 3}}, "expected the number of the database at the end of LOCATION"),
        ({"OPTIONS": {"pool_class": "x"}}, "expected CONNECTION_POOL_CLASS"),
        ({"OPTIONS": {"compressor": "x"}}, "expected compress_min_bytes"),
        ({"OPTIONS": {"tracking": True}}, "expected the backend cacheapp.backends.NearCache"),
        ({"SHARDS": 4}, "SHARDS is not a cache argument here; expected OPTIONS['shards']"),
        (
            {"OPTIONS": {"reads_django_redis": True, "serializer": "json"}},
            "requires 'serializer' to be 'pickle'",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_e002_names_what_replaces_an_option_of_another_package(
    settings: Settings, entry: dict[str, Any], hint: str
) -> None:
    settings.CACHES = {"default": _redis() | entry}
    assert hint in _found()["cacheapp.E002"]


def test_e002_names_what_replaces_an_option_of_django_redis_in_an_lmdb_cache(
    settings: Settings, tmp_path: Path
) -> None:
    entry = {"BACKEND": "cacheapp.backends.LMDBCache", "LOCATION": tmp_path / "cache"}
    settings.CACHES = {"default": {**entry, "OPTIONS": {"SERIALIZER": "a.b"}}}
    assert "expected serializer: 'pickle'" in _found()["cacheapp.E002"]


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"VERSION": 2}, True),
        ({"TIMEOUT": 5, "VERSION": 2}, True),
        ({}, False),
        ({"KEY_PREFIX": "other"}, False),
        ({"OPTIONS": {"cull_limit": 3}}, False),
    ],
    ids=["version", "version and timeout", "one cache by two names", "prefix", "options"],
)
def test_w013_disk_aliases_that_look_like_one_cache(
    settings: Settings, tmp_path: Path, changes: dict[str, Any], *, warned: bool
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for location in (tmp_path / "cache", tmp_path / "link" / "cache"):
        other = {**_disk(location), **changes}
        settings.CACHES = {"default": _disk(tmp_path / "cache"), "other": other}
        assert ("cacheapp.W013" in _found()) is warned


# -- the user of Gunicorn's workers ------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "config", "reported"),
    [
        ("", "workers = 2\nuser = 'nobody'\n", True),
        ("", "user = 65534\n", True),
        ("-u nobody --config gunicorn.conf.py", "user = 'root'\n", True),
        (f"--user={os.geteuid()}", "user = 'nobody'\n", False),
        ("-c other.py", "user = 'nobody'\n", False),
        ("", "import os\nuser = os.environ.get('X')\n", False),
        ("", "user = None\n", False),
        ("", "user = 'no-such-user'\n", False),
        ("--user", "user =", False),
        ("'", "", False),
    ],
)
def test_w016_gunicorn_runs_the_workers_as_another_user(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    config: str,
    reported: bool,  # noqa: FBT001
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUNICORN_CMD_ARGS", arguments)
    Path("gunicorn.conf.py").write_text(config)
    settings.CACHES = {"default": _disk(tmp_path / "cache")}
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": tmp_path / "state"}
    # Alone: Django's own checks build the cache, before or after this one.
    assert check_user_of_workers() == []  # nothing is created yet
    (tmp_path / "cache").mkdir(mode=0o700)
    owner = (tmp_path / "cache").stat().st_uid
    found = "".join(each.msg for each in check_user_of_workers())
    assert (f"belongs to user {owner}, but Gunicorn is configured" in found) == reported
    assert ("cacheapp.W016" in _found()) == reported


def test_the_checks_create_nothing(settings: Settings, tmp_path: Path) -> None:
    """Django's own checks build every cache. Root may run them, and the workers are another user."""
    near = {**_redis(), "BACKEND": "cacheapp.backends.NearCache"}
    settings.CACHES = {
        "default": {**_disk(tmp_path / "lmdb"), "BACKEND": "cacheapp.backends.LMDBCache"},
        "disk": _disk(tmp_path / "disk"),
        "redis": _redis("other"),
        "near": {**near, "OPTIONS": {"copy": str(tmp_path / "copy")}},
    }
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": tmp_path / "state"}
    assert _found(deploy=True) == {}
    assert list(tmp_path.iterdir()) == []
    caches["default"].get("key")
    assert (tmp_path / "state").is_dir()
