"""A private Prometheus on loopback that scrapes one site, and what it answers to an expression."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from cacheapp.processes.servers import Server, ServerFailed
from cacheapp.processes.waiting import until
from tests.dashboard.expressions import Labels
from tests.ports import free_port

NO_PROMETHEUS = (
    "The picture of the dashboard needs Prometheus: it is not on PATH. On Debian, run as root: "
    "apt install prometheus (and `systemctl disable --now prometheus`: the service is not needed)"
)
_CONFIG = """\
global:
  scrape_interval: {every_s}s
  scrape_timeout: {every_s}s
scrape_configs:
  - job_name: site
    authorization:
      credentials_file: {directory}/token
    static_configs:
      - targets: ["{target}"]
        labels: {{instance: "{instance}"}}
"""


class Line(NamedTuple):
    """What one label set of an expression had: pairs of wall time and value."""

    labels: Labels
    points: Sequence[tuple[float, float]]


class PrometheusServer(Server):
    """The server; its data are in its directory, which disappears with it."""

    def __init__(self, target: str, instance: str, token: str, every_s: int) -> None:
        binary = shutil.which("prometheus")
        if binary is None:
            raise ServerFailed(NO_PROMETHEUS)
        super().__init__()
        self._binary = binary
        self.url = f"http://127.0.0.1:{free_port()}"
        (self.directory / "token").write_text(token)
        (self.directory / "prometheus.yml").write_text(
            _CONFIG.format(
                every_s=every_s, directory=self.directory, target=target, instance=instance
            )
        )

    def start(self) -> Self:
        """Start the server; return when it responds."""
        self._spawn(
            [
                self._binary,
                f"--config.file={self.directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ]
        )
        try:
            until(self._is_ready, "Prometheus to respond", 60)
        except TimeoutError as exc:
            raise self._failed(str(exc)) from None
        return self

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10) as response:  # noqa: S310
                return bool(response.status == 200)
        except OSError:
            return False

    def scraped(self) -> list[str]:
        """Return the error of each last scrape of a target; empty for one that succeeded."""
        found: Any = self._get("targets")
        return [target["lastError"] for target in found["activeTargets"]]

    def query(self, expression: str, began_s: float, ended_s: float, step_s: int) -> list[Line]:
        """Return the lines that an expression has between two times."""
        found: Any = self._get(
            "query_range", query=expression, start=began_s, end=ended_s, step=step_s
        )
        return [
            Line(each["metric"], [(at_s, float(text)) for at_s, text in each["values"]])
            for each in found["result"]
        ]

    def _get(self, what: str, **query: object) -> Any:
        url = f"{self.url}/api/v1/{what}?{urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 (our own server)
                return json.load(response)["data"]
        except urllib.error.HTTPError as exc:  # Prometheus says what is wrong in the body
            with exc:
                reason = json.load(exc)["error"]
            raise ServerFailed(f"{query}: {reason}") from exc
