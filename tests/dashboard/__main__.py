"""Renew docs/grafana/observed.json and docs/pictures/dashboard.svg by a real run: `python -m tests.dashboard`."""

import argparse
import contextlib
import hashlib
import json
import secrets
import sys
import tempfile
from pathlib import Path

from cacheapp import clock
from cacheapp.processes.servers import GunicornServer, RedisServer, ServerFailed
from cacheapp.processes.waiting import until
from cacheapp.processes.workers import Workers
from tests.browser.deploying import deployed
from tests.dashboard import kept, traffic
from tests.dashboard.drawing import Lines
from tests.dashboard.expressions import Panel
from tests.dashboard.prometheus import PrometheusServer
from tests.origin import Origin
from tests.system.conftest import ROOT, WORKERS

MOST_BYTES = 300_000
INSTANCE = "shop-1"
_STEP_S = 2
_WARM_S = 12.0  # so that each rate has its samples


def main() -> int:
    """Keep what was found, and draw it; return 0, or print what is missing or found nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.dashboard", description=__doc__)
    parser.add_argument("--seconds", type=float, default=150)
    asked = parser.parse_args()
    try:
        found = _observed(kept.shown(), asked.seconds)
    except ServerFailed as exc:
        print(exc, file=sys.stderr)
        return 1
    kept.keep(found, asked.seconds)
    picture = kept.picture()
    assert len(picture) < MOST_BYTES, f"{len(picture)} bytes; at most {MOST_BYTES}"
    kept.PICTURE.write_text(picture)
    print(f"{kept.PICTURE.relative_to(ROOT)}: {len(picture)} bytes")
    return 0


def _observed(shown: list[Panel], seconds: float) -> list[tuple[Panel, Lines]]:
    """Run the site under traffic; return each panel with the lines that Prometheus has for it."""
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin())
        redis = stack.enter_context(RedisServer()).start()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheapp-")))
        token = secrets.token_urlsafe()
        env = deployed(
            directory,
            redis.url,
            DJANGO_SETTINGS_MODULE="tests.dashboard.site_settings",
            DOWNLOAD_ORIGINS=origin.url,
            DOWNLOAD_HEARTBEAT_S="3",
            API_TOKENS=json.dumps({"prometheus": _granted(token)}),
        )
        site = stack.enter_context(GunicornServer("project.wsgi:application", ROOT, env)).start()
        with Workers(site.url, WORKERS) as workers:
            workers.find()
        target = site.url.removeprefix("http://")
        prometheus = stack.enter_context(PrometheusServer(target, INSTANCE, token, 1)).start()
        with traffic.visitors(site.url):
            until(lambda: prometheus.scraped() == [""], "a scrape that succeeds", 60)
            began_s = clock.wall_s() + _WARM_S
            traffic.happen(_WARM_S + seconds, site.url, redis, origin.url)
        return [(panel, _lines(prometheus, panel, began_s, seconds)) for panel in shown]


def _granted(token: str) -> dict[str, object]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return {"sha256": digest, "permissions": ["cacheapp.view_stats"]}


def _lines(prometheus: PrometheusServer, panel: Panel, began_s: float, seconds: float) -> Lines:
    """Return the lines of a panel; each of its expressions must have one."""
    found: list[tuple[str, list[tuple[float, float]]]] = []
    for target in panel.targets:
        lines = prometheus.query(target.expression, began_s, began_s + seconds, _STEP_S)
        if not lines:
            raise ServerFailed(f"{panel.title}: Prometheus has nothing for {target.expression}")
        names = sorted((target.name(line.labels), line) for line in lines)
        found += [
            (name, [(at_s - began_s, value) for at_s, value in line.points]) for name, line in names
        ]
    print(f"{panel.title}: {', '.join(name for name, _ in found)}")
    return found


if __name__ == "__main__":
    sys.exit(main())
