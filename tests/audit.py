"""Audit the pinned packages (`make check`): fail if one has a known vulnerability.

Where no advisory service answers, print that in one line and pass.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILES = ("requirements-dev.txt", "requirements-redis.txt", "requirements-bench.txt")
ACCEPTED = {
    # diskcache unpickles what is in its directory. docs/cve-2025-69872.md: the directory is private.
    "CVE-2025-69872",
}


def _pip_audit(file: Path) -> subprocess.CompletedProcess[str]:
    # The file has every pin, with hashes: nothing is resolved or installed.
    options = ["--disable-pip", "--no-deps", "--format=json", "--progress-spinner=off"]
    command = [sys.executable, "-m", "pip_audit", *options, "--timeout=10", "-r", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def findings(report: Mapping[str, Any], accepted: set[str]) -> list[str]:
    """Return a line for each vulnerability that is not accepted."""
    return [
        f"{package['name']} {package['version']}: {found['id']}"
        f" (fixed in {', '.join(found['fix_versions']) or 'no release'})"
        for package in report["dependencies"]
        for found in package.get("vulns", [])
        if accepted.isdisjoint({found["id"], *found["aliases"]})
    ]


def answered(report: Mapping[str, Any]) -> bool:
    """Return whether the service knew any package: a mirror without advisories knows none."""
    return any("skip_reason" not in package for package in report["dependencies"])


def main() -> int:
    """Audit each file; return the exit status."""
    found: list[str] = []
    for name in FILES:
        done = _pip_audit(ROOT / name)
        try:
            report = json.loads(done.stdout)
        except ValueError:
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            print(f"pip-audit: not audited, because no advisory service answers ({reason[:200]})")
            return 0
        if not answered(report):
            print("pip-audit: not audited, because the package index here has no advisories")
            return 0
        found += findings(report, ACCEPTED)
    for line in sorted(set(found)):
        print(f"pip-audit: {line}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
