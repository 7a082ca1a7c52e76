"""`/metrics`: who may read it, what it has, and that the dashboard and the reference know the same names."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db import OperationalError
from django.db.models import QuerySet
from django.test import Client
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from pytest_django.fixtures import Settings

from cacheapp.backends.core.operations import subscribe
from cacheapp.telemetry.metric_table import CACHE_METRICS
from cacheapp.telemetry.operation_counts import OPERATIONS, OperationCounts
from tests.contract.test_operations import CALLS
from tests.dashboard.expressions import Target, panels

pytestmark = pytest.mark.django_db
DOCS = Path(__file__).parents[3] / "docs"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "grafana" / "cacheapp.json").read_text())


@pytest.fixture
def site(settings: Settings, tmp_path: Path) -> Settings:
    digest = hashlib.sha256(b"right").hexdigest()
    tokens = {
        "prometheus": {"sha256": digest, "permissions": ["cacheapp.view_stats"]},
        "other": {"sha256": hashlib.sha256(b"poor").hexdigest(), "permissions": []},
    }
    settings.CACHEAPP = {"STATE_DIR": tmp_path / "state", "API_TOKENS": tokens, "METRICS": True}
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path
    lmdb = {"BACKEND": "cacheapp.backends.LMDBCache", "OPTIONS": {"size_limit": 2**21}}
    settings.CACHES = {
        "default": {**lmdb, "LOCATION": str(tmp_path / "cache")},
        "same": {**lmdb, "LOCATION": str(tmp_path / "cache")},
        "nowhere": {**lmdb, "LOCATION": "/proc/none"},
        "foreign": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    return settings


def _get(secret: str = "right", **headers: str) -> Any:  # noqa: S107 (of this test)
    authorization = {"authorization": f"Bearer {secret}"} if secret else {}
    return Client(headers={"host": "localhost"}).get(
        "/metrics", headers={**authorization, **headers}
    )


def _samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(("secret", "status"), [("", 401), ("wrong", 401), ("poor", 403)])
def test_nobody_reads_it_without_a_token_or_the_permission(
    site: Settings, secret: str, status: int
) -> None:
    answer = _get(secret)
    assert answer.status_code == status
    assert b"cacheapp_cache" not in answer.content


def test_it_has_what_the_caches_did(site: Settings) -> None:
    cache = caches["default"]
    end = subscribe(OperationCounts().count)
    cache.set("key", 1)
    cache.get_many(["key", "not"])
    with pytest.raises(ValueError, match="not found"):
        cache.incr("not")
    end()
    found = _samples(_get().content.decode())
    of_default = ("default", "LMDBCache")
    assert found["cacheapp_cache_hits_total", *of_default] == 1
    assert found["cacheapp_cache_misses_total", *of_default] == 1
    assert found["cacheapp_cache_entries", *of_default] == 1
    used, limit = (found[f"cacheapp_cache_{name}_bytes", *of_default] for name in ("used", "limit"))
    assert 0 < used < limit <= 2**21
    duration = "cacheapp_cache_operation_duration_seconds"
    for operation in ("set", "get_many", "incr"):
        assert found[f"{duration}_count", "default", operation] == 1
        assert found[f"{duration}_sum", "default", operation] > 0
    assert found["cacheapp_cache_operation_errors_total", "default", "other"] == 1
    assert found["cacheapp_cache_operation_errors_total", "default", "store_full"] == 0
    assert found["cacheapp_cache_up", *of_default] == 1
    assert found["cacheapp_cache_up", "nowhere", "LMDBCache"] == 0
    assert {key[1] for key in found if key[0] == "cacheapp_cache_up"} == {"default", "nowhere"}
    assert found["cacheapp_downloads_jobs", "running"] == 0
    assert found["cacheapp_downloads_database_up",] == 1


def test_every_operation_has_a_name_of_its_own() -> None:
    assert {name for name, *_ in CALLS} <= set(OPERATIONS)


def test_a_database_that_does_not_respond_hides_no_other_metric(
    site: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise OperationalError('connection to "10.1.2.3" failed for user "shop"')

    monkeypatch.setattr(QuerySet, "_fetch_all", refuse)
    monkeypatch.setattr(QuerySet, "aggregate", refuse)
    text = _get().content.decode()
    found = _samples(text)
    assert found["cacheapp_downloads_database_up",] == 0
    assert found["cacheapp_cache_up", "default", "LMDBCache"] == 1
    assert "10.1.2.3" not in text


def test_names_types_and_texts_follow_the_conventions(site: Settings) -> None:
    answer = _get(accept="application/openmetrics-text; version=1.0.0")
    assert answer["Content-Type"].startswith("application/openmetrics-text")
    parse: Any = openmetrics
    families = list(parse(answer.content.decode()))  # raises what the format does not allow
    assert len(families) > 20
    for family in families:
        assert re.fullmatch(r"cacheapp_(cache|downloads)_[a-z_]+", family.name)
        assert not re.search(r"_(ms|us|ns|milliseconds|kb|mb|percent)$", family.name)
        assert re.match(r"[A-Z].*\.$", family.documentation)
        assert family.type in {"counter", "gauge", "histogram"}


def _names(site: Settings) -> set[str]:
    """Return the names of all families as the text format has them."""
    families = text_string_to_metric_families(_get().content.decode())
    return {it.name + ("_total" if it.type == "counter" else "") for it in families}


def test_the_reference_has_each_metric_and_no_other(site: Settings) -> None:
    page = (DOCS / "reference" / "metrics.md").read_text()
    listed = set(re.findall(r"^\| `(cacheapp_\w+)` ", page, re.MULTILINE))
    assert listed >= _names(site)
    assert {name for name in listed - _names(site) if "_copy_" not in name} == set()


def _labels(site: Settings) -> dict[str, set[str]]:
    """Return the labels of each metric, as Prometheus stores it. No cache here has a copy."""
    own = {"alias", "backend", "instance"}
    found = {metric.name: own for metric in CACHE_METRICS if "_copy_" in metric.name}
    for family in text_string_to_metric_families(_get().content.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {"instance"}).update(sample.labels)
    return found


def test_the_dashboard_asks_for_metrics_and_labels_that_exist(site: Settings) -> None:
    end = subscribe(OperationCounts().count)
    caches["default"].get("key")
    end()
    labels = _labels(site)
    used = set()
    for target in _targets():
        metrics = re.findall(r"\b(cacheapp_\w+)(?:{([^}]*)})", target.expression)
        assert len(metrics) == target.expression.count("cacheapp_"), "each has its selector"
        used |= {name for name, _ in metrics}
        for name, selector in metrics:
            assert set(re.findall(r"(\w+)=~", selector)) <= labels[name], target
        of_lines = set.intersection(*(labels[name] for name, _ in metrics))
        for group in re.findall(r"by \(([^)]*)\)", target.expression):
            assert set(group.split(", ")) <= of_lines, target
            of_lines &= set(group.split(", "))
        of_lines -= of_lines if target.expression.startswith("sum(") else set()
        assert set(re.findall(r"{{(\w+)}}", target.legend)) <= of_lines, target
    assert len(used) > 20


def _targets() -> list[Target]:
    shown = panels(DASHBOARD, "5m")
    return [target for panel in shown for target in panel.targets]


def test_no_panel_of_the_dashboard_covers_another() -> None:
    places = [
        (panel.x + column, panel.y + row)
        for panel in panels(DASHBOARD, "5m")
        for column in range(panel.width)
        for row in range(panel.height)
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) == 23
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
