"""Check the dashboard against Grafana's own types: `python -m tests.dashboard.schema`. Needs Node.js and npm.

The types are those of the npm package `@grafana/schema`; `ts-json-schema-generator` makes JSON Schema from
them. Not part of the tests, because both come from a registry.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs

from tests.dashboard.kept import DASHBOARD

PACKAGES = ("@grafana/schema@13.2.3", "ts-json-schema-generator@2")
_TYPES = """\
import * as dashboard from "./node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen";
import * as lines from "./node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen";
export type WholeDashboard = dashboard.Dashboard;
export type LineOptions = lines.Options;
export type LineFields = lines.FieldConfig;
"""


def main() -> int:
    """Print what the types do not allow; return 0 if there is nothing."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "types.ts").write_text(_TYPES)
        install = ["npm", "install", "--silent", "--ignore-scripts", "--legacy-peer-deps"]
        subprocess.run([*install, *PACKAGES], cwd=place, check=True)
        mistakes = list(_mistakes(json.loads(DASHBOARD.read_text()), place))
    print(*mistakes or [f"{PACKAGES[0]} allows it"], sep="\n")
    return int(bool(mistakes))


def _mistakes(dashboard: dict[str, Any], place: Path) -> Iterator[str]:
    yield from _check("WholeDashboard", dashboard, "dashboard", place)
    shown = [panel for panel in dashboard["panels"] if panel["type"] == "timeseries"]
    for panel in shown:
        fields = panel["fieldConfig"]["defaults"]["custom"]
        yield from _check("LineOptions", panel["options"], panel["title"], place)
        yield from _check("LineFields", fields, panel["title"], place)


def _check(name: str, value: object, where: str, place: Path) -> Iterator[str]:
    schema = place / f"{name}.json"
    if not schema.exists():
        command = ["npx", "ts-json-schema-generator", "--path", "types.ts", "--type", name]
        subprocess.run([*command, "--no-type-check", "-o", schema], cwd=place, check=True)
    found = jsonschema_rs.validator_for(json.loads(schema.read_text())).iter_errors(value)
    for mistake in found:
        yield f"{where}: {list(mistake.instance_path)}: {mistake.message}"


if __name__ == "__main__":
    sys.exit(main())
