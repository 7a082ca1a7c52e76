"""Other Pythons on PATH: whether a claim holds may depend on the version, and on the GIL."""

import functools
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass

_NAMES = [f"python3.{minor}{suffix}" for minor in range(9, 17) for suffix in ("", "t")]
_ASK = (
    "import json, sys; gil = getattr(sys, '_is_gil_enabled', lambda: True)(); "
    "print(json.dumps(['.'.join(map(str, sys.version_info[:3])), gil, sys.executable]))"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python that can be started here."""

    version: str
    gil: bool
    path: str


@functools.cache
def others() -> tuple[Interpreter, ...]:
    """Return the Pythons on PATH that are of other versions than this one, each version once."""
    here = ".".join(map(str, sys.version_info[:3]))
    found: dict[tuple[str, bool], Interpreter] = {}
    for path in filter(None, map(shutil.which, _NAMES)):
        one = _ask(path)
        if one is not None and one.version != here:
            found.setdefault((one.version, one.gil), one)
    return tuple(found.values())


def _ask(path: str) -> Interpreter | None:
    """Return the interpreter at a path; `None` if it does not run."""
    try:
        done = subprocess.run(  # noqa: S603 (a Python of this user's PATH)
            [path, "-c", _ASK], capture_output=True, timeout=20, check=True
        )
        version, gil, executable = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(version, gil, executable)
