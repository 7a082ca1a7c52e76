"""One page of a real server, as django-debug-toolbar shows it, and as Sentry's server receives it."""

import gzip
import html
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from sentry_sdk.envelope import Envelope

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from tests.system.conftest import QUICK_START, ROOT, NewEnv
from tests.webhook_receiver import WebhookReceiver

OPERATIONS = [
    *("get", "set", "get", "get_many", "get_or_set", "get_or_set", "get_or_set"),
    *("add", "incr", "delete_many"),
]


@pytest.fixture(scope="module")
def sentry() -> Iterator[WebhookReceiver]:
    """A server that receives what Sentry's own transport sends."""
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def url(new_env: NewEnv, sentry: WebhookReceiver) -> Iterator[str]:
    env = {
        **new_env(),
        **QUICK_START,
        "DJANGO_SETTINGS_MODULE": "tests.system.traced_settings",
        "DEBUG": "1",
        "WEB_CONCURRENCY": "1",  # the toolbar keeps its panels in the process
        "SENTRY_URL": f"http://public@127.0.0.1:{sentry.port}/1",
        "NO_PROXY": "127.0.0.1",
    }
    with GunicornServer("project.wsgi:application", ROOT, env) as server:
        yield server.start().url


@pytest.fixture(scope="module")
def served(url: str) -> str:
    """The page, with the toolbar in it."""
    return _get(f"{url}/page")


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=120) as response:  # noqa: S310 (our own server)
        text: str = response.read().decode()
    return text


def test_the_toolbar_shows_each_call_once_with_its_time_and_the_hits(url: str, served: str) -> None:
    found = re.search(r'data-request-id="(\w+)"\s+data-render-panel-url="([^"]+)"', served)
    assert found, served
    query = urlencode({"request_id": found[1], "panel_id": "CachePanel"})
    panel: str = json.loads(_get(f"{url}{found[2]}?{query}"))["content"]
    cells = re.findall(r"<td>(.*?)</td>", panel, re.DOTALL)
    calls, spent, hits, misses = cells[:4]
    rows = re.findall(r"<td>([\d.]+)ms</td>\s*<td>(\w+)</td>\s*<td>(.*?)</td>", panel)
    assert [name for _, name, _ in rows] == OPERATIONS
    assert html.unescape(rows[1][2]).startswith("['key', 'xxx")
    assert int(calls) == len(rows)
    assert float(spent.removesuffix(" ms")) > 0
    assert (int(hits), int(misses)) == (5, 2)  # it takes what get_or_set computes for a hit
    assert panel.count("lmdb (LMDBCache)") == len(rows)


def test_sentry_receives_each_call_once_and_queries_below_the_call_that_computes(
    sentry: WebhookReceiver, served: str
) -> None:
    assert "page" in served
    until(lambda: _transactions(sentry), "the transaction to arrive", 60)
    (transaction,) = _transactions(sentry)
    spans = [it for it in transaction["spans"] if it["op"].startswith("cache.")]
    assert [it["data"]["cache.operation"] for it in spans] == OPERATIONS
    hits = [it["data"].get("cache.hit") for it in spans]
    assert hits == [False, None, True, True, False, False, True, None, None, None]
    assert all(it["start_timestamp"] <= it["timestamp"] for it in spans)
    assert 100 <= spans[1]["data"]["cache.item_size"] < 200
    queries = [it for it in transaction["spans"] if it["description"] == "SELECT 1"]
    computing = [spans[4]["span_id"], spans[5]["span_id"]]
    assert [it["parent_span_id"] for it in queries if it["op"] == "db"] == computing


def _transactions(sentry: WebhookReceiver) -> list[dict[str, Any]]:
    """Return the transactions of the page among what was received."""
    found = []
    for received in list(sentry.received):
        packed = received.headers.get("content-encoding") == "gzip"
        envelope: Any = Envelope.deserialize(
            gzip.decompress(received.body) if packed else received.body
        )
        transaction = envelope.get_transaction_event()
        if transaction is not None and transaction["request"]["url"].endswith("/page"):
            found.append(transaction)
    return found
