"""Every Python block of README and docs runs, from the top of its page to the bottom."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cacheapp.processes.servers import RedisServer, child_env
from tests.integration.docs.blocks import Step, pages, steps_of
from tests.integration.docs.run_pages import ROOT

RUN_ELSEWHERE = {
    "docs/tutorial.md": "tests/system/test_tutorial.py",
    "docs/claims.md": "cacheapp/lab",  # made from there; see below
}
PAGES = [page for page in pages(ROOT) if "```python" in page.read_text()]
HERE = [page for page in PAGES if str(page.relative_to(ROOT)) not in RUN_ELSEWHERE]
MOST_LEFT_OUT = 4


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def results(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What running all pages has printed, by page."""
    directory = tmp_path_factory.mktemp("pages")
    names = [str(page) for page in HERE]
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.run_pages", directory, redis_server.url, *names],
        cwd=ROOT,
        env={**child_env(), "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"page"')]
    return {each["page"]: each for each in found}


def _blocks(page: Path) -> list[Step]:
    return [step for step in steps_of(page.read_text()) if not step.hidden]


@pytest.mark.parametrize("document", HERE, ids=_ids)
def test_all_blocks_of_a_page_run(document: Path, results: dict[str, dict[str, Any]]) -> None:
    result = results[str(document)]
    assert result["error"] == ""
    assert result["done"] == len([step for step in _blocks(document) if step.left_out != "not run"])


def test_no_block_is_overlooked() -> None:
    for page in PAGES:
        assert len(_blocks(page)) == len(
            re.findall(r"^ *```python", page.read_text(), re.MULTILINE)
        )


def test_few_blocks_are_left_out_and_each_says_why() -> None:
    left_out = [step for page in PAGES for step in _blocks(page) if step.left_out]
    assert 0 < len(left_out) <= MOST_LEFT_OUT
    for step in left_out:
        (place,) = re.findall(r"\btests/[\w/.]+", step.reason)
        assert (ROOT / place).exists()


def test_each_hazard_is_answered_in_its_first_paragraph() -> None:
    hazards = sorted((ROOT / "docs" / "hazards").glob("*.md"))
    assert len(hazards) == 8
    for page in hazards:
        _title, answer, *_rest = page.read_text().split("\n\n")
        assert re.fullmatch(r"\*\*[^*]{20,170}\*\*", answer), page


def test_the_pages_that_run_elsewhere_are_named_there() -> None:
    assert "docs/tutorial.md" in (ROOT / RUN_ELSEWHERE["docs/tutorial.md"]).read_text()


def _statements(code: str) -> set[str]:
    """Return the statements of a module, without comments and docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return {ast.dump(node) for node in tree.body}


def test_the_code_of_the_claims_is_what_the_lab_times() -> None:
    timed = set[str]()
    for path in (ROOT / RUN_ELSEWHERE["docs/claims.md"]).rglob("*.py"):
        timed |= _statements(path.read_text())
    for step in _blocks(ROOT / "docs/claims.md"):
        assert _statements(step.code) <= timed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- not run: because -->\n<!-- not used: because -->\n", "two comments"),
        ("<!-- not run: because -->\n\nnothing\n", "no block"),
    ],
    ids=["two", "none"],
)
def test_a_comment_belongs_to_a_block(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        steps_of(text)
