"""Credentials for origins, with real origins on loopback: where they are sent, and where not."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import serializers
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from cacheapp.downloads.http.credentials import origin_signer, read_netrc
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from tests.objects import Thing, Version
from tests.origin import Origin

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "s3cr3t-token"  # noqa: S105
V1 = Version(b"found", '"v"')


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(autouse=True)
def no_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty-netrc").touch()
    monkeypatch.setenv("NETRC", str(tmp_path / "empty-netrc"))


def _download(tmp_path: Path, *words: str) -> None:
    common = ("--to", str(tmp_path / "to"), "--allow", "127.0.0.0/8", "--json")
    call_command("download", *words, *common)


def _set(settings: Settings, headers: Any) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_HEADERS": headers}


def test_a_token_is_sent_to_its_origin_alone_and_neither_stored_nor_shown(
    origin: Origin,
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FILES_TOKEN", SECRET)
    header = {"Authorization": {"env": "FILES_TOKEN", "prefix": "Bearer "}}
    with Origin() as other:
        _set(settings, {origin.url: header, other.url: {"X-Other": SECRET}})
        other.things["away"] = Thing([V1])
        location = f"302 Found\r\nLocation: {other.url}/thing/away"
        origin.things["moved"] = Thing([], refusals=[location])
        origin.things["here"] = Thing([V1])
        _download(tmp_path, f"{origin.url}/thing/moved", f"{origin.url}/thing/here")
        for name in ("moved", "here"):
            assert origin.things[name].asked[0]["authorization"] == f"Bearer {SECRET}"
        asked = other.things["away"].asked[0]
        assert not {"authorization", "x-other"} & asked.keys()
    rows = [*DownloadJob.objects.all(), *DownloadFile.objects.all()]
    assert SECRET not in serializers.serialize("json", rows)
    assert SECRET not in "".join(capsys.readouterr())


def test_a_file_is_read_again_for_each_request(origin: Origin, tmp_path: Path) -> None:
    from cacheapp.access_settings import read_headers  # noqa: PLC0415

    path = tmp_path / "token"
    sign = origin_signer(read_headers({origin.url: {"X-Key": {"file": str(path)}}}))
    assert sign is not None
    for value in ("one", "two"):
        path.write_text(f"{value}\n")
        assert sign(f"{origin.url}/x") == {"X-Key": value}
    assert sign("http://127.0.0.1:1/x") == {}


def test_a_missing_token_fails_the_file_without_a_request(
    origin: Origin, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    _set(settings, {origin.url: {"Authorization": {"env": "ABSENT_TOKEN"}}})
    with pytest.raises(CommandError):
        _download(tmp_path, f"{origin.url}/file/a")
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert error["error"] == f"the header Authorization for {origin.url} cannot be read"
    assert origin.asked == []


def test_a_terminal_sends_the_login_of_netrc_to_its_host_unless_told_not_to(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1 login me password {SECRET}\ndefault login x password y\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    basic = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert read_netrc() == {"127.0.0.1": basic}
    for name, words in (("with", []), ("without", ["--no-netrc"])):
        origin.things[name] = Thing([V1])
        _download(tmp_path, f"{origin.url}/thing/{name}", *words)
    assert origin.things["with"].asked[0]["authorization"] == basic
    assert "authorization" not in origin.things["without"].asked[0]


@pytest.mark.parametrize("text", [None, "machine\n"])
def test_a_netrc_file_that_cannot_be_read_starts_nothing(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "netrc"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("NETRC", str(path))
    with pytest.raises(CommandError, match=str(path)) as caught:
        _download(tmp_path, "http://127.0.0.1:9/x")
    assert caught.value.returncode == 2
