"""The imports of `gunicorn.conf.py`, which the import linter cannot read: its name has a dot."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_configuration_of_gunicorn_imports_only_the_hooks() -> None:
    tree = ast.parse((ROOT / "gunicorn.conf.py").read_text())
    imported = {
        f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    } | {
        name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    assert {name for name in imported if name.startswith("cacheapp")} == {
        "cacheapp.body_deadline",
        "cacheapp.gunicorn_hooks",
    }


def test_the_hooks_load_nothing_of_django_in_the_master() -> None:
    program = (
        "import sys, cacheapp.body_deadline, cacheapp.gunicorn_hooks\n"
        "print('django' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
