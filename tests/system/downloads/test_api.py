"""The API over several workers: an order creates one job, and any worker accepts commands."""

import hashlib
import http.client
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cacheapp.processes.waiting import until
from tests.ensure_programs import NO_CURL, find_curl
from tests.objects import Thing, Version
from tests.origin import Origin
from tests.required import skip_or_fail
from tests.system.conftest import QUICK_START, NewEnv, StartGunicorn
from tests.system.downloads.page_reader import ELSEWHERE, PAGES, SECRET, Reader, blocks
from tests.system.downloads.parts import PATIENT, ROOT, Site, expected, migrate, paths


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


TOKEN = {
    "reader": {
        "sha256": hashlib.sha256(b"secret-of-reader").hexdigest(),
        "permissions": ["cacheapp_downloads.view_downloadjob"],
    },
    "nightly": {
        "sha256": hashlib.sha256(SECRET.encode()).hexdigest(),
        "permissions": [
            "cacheapp_downloads.add_downloadjob",
            "cacheapp_downloads.view_downloadjob",
        ],
    },
}


@pytest.fixture(scope="module")
def env(new_env: NewEnv, origin: Origin) -> dict[str, str]:
    return {
        **new_env(),
        **QUICK_START,
        **PATIENT,
        "DOWNLOAD_ORIGINS": origin.url,
        "DOWNLOAD_TRIES": "1",
        "API_TOKENS": json.dumps(TOKEN),
    }


@pytest.fixture(scope="module")
def site(env: dict[str, str], start_gunicorn: StartGunicorn, origin: Origin) -> Iterator[Site]:
    migrate(env)
    found = Site(start_gunicorn(env), env, origin)
    yield found
    found.workers.close()


def send(
    site: Site, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
    """Ask over a connection of its own, so that any worker may get it."""
    connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=120)
    try:
        data = None if body is None else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, {"Content-Type": "application/json", **named})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers
    finally:
        connection.close()


def test_exactly_one_of_many_orders_with_one_key_creates_a_job(site: Site) -> None:
    workers: set[int] = set()

    def all_workers_raced() -> bool:
        order = {"urls": [site.origin.url + path for path in paths(1, 10)]}
        key = uuid.uuid4().hex
        with ThreadPoolExecutor(16) as pool:
            asked = [
                pool.submit(send, site, "POST", "/api/downloads", order, Idempotency_Key=key)
                for _ in range(16)
            ]
        answers = [it.result() for it in asked]
        assert len({body["id"] for _status, body, _headers in answers}) == 1
        assert sorted(status for status, _body, _headers in answers) == [200] * 15 + [202]
        workers.update(body["pid"] for _status, body, _headers in answers)
        return len(workers) > 1

    until(all_workers_raced, "several workers to have had the same order", 120)


def test_any_worker_pauses_a_job_and_another_resumes_it(site: Site) -> None:
    first, second, third = site.workers.find()[:3]
    thing = Thing([Version(b"x" * 900_000, '"1"')], cuts=[600_000], hang=True)
    site.origin.things["paused"] = thing
    job = site.order([*paths(5, 1000), "/thing/paused"], threads=2, pid=first)
    path = f"/api/downloads/{job['id']}"
    until(lambda: site.look(job)["bytes_done"] >= 250_000, "some of it to be there", 120)
    asked = site.workers.ask(second, "POST", f"{path}/pause")
    assert (asked.status, asked.body["pause_requested"]) == (202, True)
    until(lambda: site.look(job)["paused"], "the job to be paused", 120)
    assert site.workers.ask(third, "POST", f"{path}/pause").status == 200
    going = site.workers.ask(third, "POST", f"{path}/resume")
    assert going.status == 202
    found = site.wait_for_state(job, "succeeded")
    assert (found["files_done"], found["paused"]) == (6, False)
    assert site.files(job) == {**expected(5, 1000), "paused": b"x" * 900_000}
    assert thing.asked[-1]["range"].startswith("bytes=")  # from the bytes on disk


def test_any_worker_retries_the_failed_files_and_keeps_the_complete_ones(site: Site) -> None:
    first, second = site.workers.find()[:2]
    site.origin.things["late"] = Thing([Version(b"late")], refusals=["404 Not Found"])
    job = site.order([*paths(3, 1000), "/thing/late"], pid=first)
    site.wait_for_state(job, "failed")
    before = len(site.origin.asked)
    answer = site.workers.ask(second, "POST", f"/api/downloads/{job['id']}/retry")
    assert (answer.status, answer.body["files_failed"]) == (202, 0)
    found = site.wait_for_state(job, "succeeded")
    assert (found["files_done"], found["errors"]) == (4, [])
    assert len(site.origin.asked) == before + 1


def test_a_manifest_is_fetched_under_its_names_and_a_wrong_checksum_is_reported(site: Site) -> None:
    (path,) = paths(1, 1000)
    good = hashlib.sha256(expected(1, 1000)["0.bin"]).hexdigest()
    url = site.origin.url + path
    manifest = f"{url} {good} good.bin\n{url} {'0' * 64} wrong.bin\n"
    status, body, headers = send(site, "POST", "/api/downloads", {"manifest": manifest})
    assert (status, headers["Location"]) == (202, f"/api/downloads/{body['id']}")
    found = site.wait_for_state(body, "failed")
    assert [error["name"] for error in found["errors"]] == ["wrong.bin"]
    assert list(site.files(body)) == ["good.bin"]
    files = site.workers.ask(site.workers.find()[0], "GET", f"{headers['Location']}/files").body
    assert [(it["name"], it["sha256"]) for it in files["files"]] == [
        ("good.bin", good),
        ("wrong.bin", None),
    ]


def test_a_token_works_through_a_proxy_where_the_demo_does_not(site: Site) -> None:
    proxied = {"X_Forwarded_For": "192.0.2.1"}
    assert send(site, "GET", "/api/downloads", **proxied)[0] == 403
    bearing = {**proxied, "Authorization": "Bearer secret-of-reader"}
    assert send(site, "GET", "/api/downloads", **bearing)[0] == 200
    status, body, headers = send(site, "POST", "/api/downloads", {"urls": []}, **bearing)
    assert (status, headers["Content-Type"]) == (403, "application/problem+json")
    assert body["detail"].startswith("token reader does not have the permission")
    assert "secret-of-reader" not in site.server.output()


def test_every_request_and_command_of_the_pages_works(
    site: Site, env: dict[str, str], tmp_path: Path
) -> None:
    if find_curl() is None:
        skip_or_fail(NO_CURL)
    reader = Reader(site, env, tmp_path)
    printed = [reader.types(block) for page in PAGES for block in blocks(page)]
    created, seen, demo, _terminal, secret, again, events = printed
    assert created.startswith("HTTP/1.1 202")
    assert json.loads(seen)["files_total"] == 1
    assert demo.startswith("HTTP/1.1 202")
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["1", "2"]
    secret, digest = secret.split()
    assert hashlib.sha256(secret.encode()).hexdigest() == digest
    assert json.loads(again)["files_total"] == 1
    assert "event: " in events


def test_the_commands_that_other_tests_run_are_named_there() -> None:
    for begin, place in ELSEWHERE.items():
        assert any(f"```sh\n{begin}" in page.read_text() for page in PAGES)
        assert (ROOT / place).exists()
