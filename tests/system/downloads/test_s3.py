"""A bucket ordered over HTTP: listed and signed by the worker, within what the settings let in."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.downloads.s3_store import Handler, Store, running_store
from tests.origin import Origin
from tests.system.conftest import QUICK_START, NewEnv, StartGunicorn
from tests.system.downloads.parts import Site, migrate

COUNT = 620  # more than one batch of rows
SECRETS = {"AWS_ACCESS_KEY_ID": "id-of-key", "AWS_SECRET_ACCESS_KEY": "secret-of-key"}


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_store(SECRETS) as found:
        for number in range(COUNT):
            found.put(f"open/{number % 7}/{number}", _body(number))
        found.put("private/x", b"private")
        yield found


@pytest.fixture(scope="module")
def site(new_env: NewEnv, start_gunicorn: StartGunicorn, store: Store) -> Iterator[Site]:
    place = {"endpoint": store.endpoint}
    buckets = {"s3://files/open/": place, "s3://absent": place}
    env = {
        **new_env(),
        **QUICK_START,
        **SECRETS,
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
        "DOWNLOAD_BUCKETS": json.dumps(buckets),
        "DOWNLOAD_TRIES": "1",
    }
    migrate(env)
    found = Site(start_gunicorn(env), env, Origin())
    yield found
    found.workers.close()
    assert "secret-of-key" not in found.server.output()


def _body(number: int) -> bytes:
    return hashlib.shake_256(b"%d" % number).digest(100 + number % 50)


def order(site: Site, text: str, **more: Any) -> dict[str, Any]:
    pid = site.workers.find()[0]
    answer = site.workers.ask(pid, "POST", "/api/downloads", {"s3": text, **more})
    return {**answer.body, "status": answer.status}


def test_all_objects_below_a_prefix_arrive_in_their_folders(site: Site, store: Store) -> None:
    job = order(site, "s3://files/open/", threads=8)
    assert (job["status"], job["files_total"]) == (202, 0)
    found = site.wait_for_state(job, "succeeded")
    assert (found["files_total"], found["files_done"]) == (COUNT, COUNT)
    assert site.files(job) == {f"{n % 7}/{n}": _body(n) for n in range(COUNT)}
    gets = [headers for method, path, headers in Handler.asked if "/open/" in path]
    assert all("Credential=id-of-key" in headers["authorization"] for headers in gets)


def test_a_bucket_that_the_settings_do_not_allow_is_refused(site: Site) -> None:
    for text in ("s3://files/private/", "s3://files/", "s3://files/open", "s3://other/open/"):
        answer = order(site, text)
        assert answer["status"] == 400
        assert "is not allowed; allowed: s3://files/open/" in answer["problems"][0]["error"]


def test_an_order_cannot_choose_a_buckets_endpoint(site: Site) -> None:
    answer = order(site, "s3://files/open/", endpoint="http://169.254.169.254")
    assert answer["status"] == 400
    (problem,) = answer["problems"]
    assert problem["field"] == "endpoint"
    assert problem["error"].startswith("is not a field; expected one of ")


def test_a_missing_bucket_fails_its_job_with_the_reason(site: Site) -> None:
    found = site.wait_for_state(order(site, "s3://absent/x/"), "failed")
    assert "NoSuchBucket" in found["error"]


def test_a_prefix_without_objects_is_no_success(site: Site) -> None:
    found = site.wait_for_state(order(site, "s3://files/open/nothing/"), "failed")
    assert found["error"] == "the listing is empty: there is no file to fetch"
