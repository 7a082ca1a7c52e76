"""The documentation leads where it says: links, pages, module paths, settings, checks and events."""

import argparse
import ast
import dataclasses
import hashlib
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import load_command_class
from django.utils.module_loading import import_string
from pytest_django.fixtures import Settings

from benchmarks.__main__ import NAMES
from cacheapp import conf
from cacheapp.backends import DiskCache, LMDBCache, RedisCache
from cacheapp.conf import Conf

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHANGELOG = ROOT / "CHANGELOG.md"
CURRENT = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
]  # the changelog has earlier names too
PAGES = [CHANGELOG, *CURRENT]
SOURCES = [
    path
    for folder in ("cacheapp", "project", "tests", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def _prose(page: Path) -> str:
    """Return the page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _links(page: Path) -> list[str]:
    """Return the targets of the page's links and pictures, external addresses excepted."""
    found = re.findall(r"\]\(([^)\s]+)\)", _prose(page))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def _anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", PAGES, ids=_ids)
def test_every_relative_link_of_a_page_leads_to_a_file_and_a_heading(document: Path) -> None:
    dead = []
    for link in _links(document):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in _anchors(target)
        ):
            dead.append(link)
    assert dead == []


def test_every_page_can_be_reached_from_the_index() -> None:
    reached, to_read = set[Path](), [DOCS / "index.md"]
    while to_read:
        page = to_read.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in _links(page)]
        to_read += [target for target in targets if target.suffix == ".md" and target != page]
    assert [page for page in sorted(DOCS.rglob("*.md")) if page not in reached] == []


@pytest.mark.parametrize("document", CURRENT, ids=_ids)
def test_every_module_that_a_page_names_exists(document: Path) -> None:
    named = re.findall(r"`([\w./-]+\.py)`", _prose(document))
    folders = [ROOT, ROOT / "cacheapp", ROOT / "cacheapp" / "backends"]
    tests = {path.name for path in (ROOT / "tests").rglob("*.py")}
    assert [
        name
        for name in named
        if not name.startswith("mysite/")  # the reader's own
        and name not in tests
        and not any((folder / name).exists() for folder in folders)
    ] == []


@pytest.mark.parametrize("document", CURRENT, ids=_ids)
def test_every_test_that_a_page_names_exists(document: Path) -> None:
    named = re.findall(r"`(test_\w+)(?:\.\.\.)?`", _prose(document))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in named if f"def {name}" not in tests] == []


def _is_there(dotted: str) -> bool:
    try:
        pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


def _python(document: Path) -> list[str]:
    """Return the page's blocks of Python code."""
    found = re.findall(
        r"^( *)```python\n(.*?)^\1```$", document.read_text(), re.DOTALL | re.MULTILINE
    )
    return [textwrap.dedent(block) for _, block in found]


def _imported(document: Path) -> list[str]:
    """Return what the page's Python code imports from cacheapp."""
    return [
        f"{node.module}.{alias.name}"
        for block in _python(document)
        if "import" in block
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cacheapp")
        for alias in node.names
    ]


@pytest.mark.parametrize("document", CURRENT, ids=_ids)
def test_every_name_of_the_code_that_a_page_uses_is_there(document: Path) -> None:
    named = re.findall(r"`(cacheapp(?:\.\w+){2,})(?:\(.*?\))?`", _prose(document))
    assert [name for name in named + _imported(document) if not _is_there(name)] == []


@pytest.mark.parametrize("document", CURRENT, ids=_ids)
def test_every_cache_that_a_page_configures_is_right(document: Path, tmp_path: Path) -> None:
    for block in _python(document):
        if "CACHES = {" not in block:
            continue
        names: dict[str, Any] = {"BASE_DIR": tmp_path}
        exec(compile(block, document.name, "exec"), names)  # noqa: S102
        for entry in names["CACHES"].values():
            backend = import_string(entry["BACKEND"])
            params = {key: entry[key] for key in entry if key not in ("BACKEND", "LOCATION")}
            assert backend.mistakes(str(entry["LOCATION"]), params) == []


def test_the_cache_of_readme_works_in_a_project_of_an_ordinary_user(
    tmp_path: Path, settings: Settings
) -> None:
    (block,) = [each for each in _python(ROOT / "README.md") if "CACHES = {" in each]
    names: dict[str, Any] = {"BASE_DIR": tmp_path}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102
    assert Path(names["CACHES"]["default"]["LOCATION"]).parent == tmp_path
    settings.CACHES = names["CACHES"]
    caches["default"].set("key", "value")
    assert caches["default"].get("key") == "value"


@pytest.mark.parametrize("document", CURRENT, ids=_ids)
def test_every_setting_that_a_page_shows_is_right(document: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    for block in _python(document):
        if "CACHEAPP = {" not in block:
            continue
        names: dict[str, Any] = {"INSTALLED_APPS": [], "BASE_DIR": tmp_path}
        exec(compile(block.replace("<digest>", digest), document.name, "exec"), names)  # noqa: S102
        assert conf.read(names["CACHEAPP"])[1] == []


def test_every_page_that_the_code_names_exists() -> None:
    named = {
        (_ids(source), name)
        for source in SOURCES
        for name in re.findall(r"\bdocs/[\w/-]+\.md", source.read_text())
    }
    assert [(source, name) for source, name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_reference_lists_every_setting() -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    settings = [field.name.upper() for field in dataclasses.fields(Conf)]
    assert [name for name in settings if f"`{name}`" not in page] == []


def test_the_reference_lists_every_environment_variable() -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    variables = {
        name
        for source in (ROOT / "project" / "settings.py", ROOT / "gunicorn.conf.py")
        for name in re.findall(r'env\.\w+\(\s*"(\w+)"', source.read_text())
    }
    assert len(variables) > 20
    assert [name for name in sorted(variables) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("backend", [LMDBCache, DiskCache, RedisCache])
def test_the_reference_lists_every_option(
    backend: type[LMDBCache | DiskCache | RedisCache],
) -> None:
    page = (DOCS / "reference" / "backends.md").read_text()
    assert [name for name in backend.OPTIONS if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("app", "name"),
    [
        *[("cacheapp", name) for name in ("cachecheck", "cachestats", "demo", "lab")],
        *[("cacheapp.downloads", name) for name in ("download", "downloads")],
    ],
)
def test_the_reference_lists_every_option_of_a_command(app: str, name: str) -> None:
    page = "".join(
        (DOCS / "reference" / file).read_text()
        for file in ("commands.md", "cachecheck.md", "lab.md")
    )
    parser = load_command_class(app, name).create_parser("manage.py", name)
    djangos = load_command_class("django.core", "check").create_parser("manage.py", "check")
    known = {option for action in djangos._actions for option in action.option_strings}  # noqa: SLF001
    options = [
        option
        for action in parser._actions  # noqa: SLF001
        for option in action.option_strings
        if action.help is not argparse.SUPPRESS and option not in known | {"--skip-checks"}
    ]
    assert [option for option in options if option not in page] == []


def test_the_example_of_the_checker_is_illegal(capsys: pytest.CaptureFixture[str]) -> None:
    page = (DOCS / "reference" / "cachecheck.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    exec(compile(example, "cachecheck.md", "exec"), {})  # noqa: S102
    verdict, *lanes = capsys.readouterr().out.splitlines()
    assert verdict == "illegal"
    assert any("get -> 1" in lane for lane in lanes)


def test_the_page_of_measurements_lists_every_benchmark() -> None:
    page = (DOCS / "performance.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+\.\w+)` \|", page, re.MULTILINE)) == sorted(NAMES)


CHECKS = ROOT / "cacheapp" / "checks"


def test_the_reference_lists_every_system_check() -> None:
    ids = {
        found
        for source in [*CHECKS.rglob("*.py"), ROOT / "cacheapp" / "downloads" / "checks.py"]
        for found in re.findall(r"\bcacheapp\.[EW]\d{3}\b", source.read_text())
    }
    page = (DOCS / "reference" / "checks.md").read_text()
    assert set(re.findall(r"\bcacheapp\.[EW]\d{3}\b", page)) == ids


def test_the_reference_lists_every_log_event() -> None:
    events = {
        found
        for source in (ROOT / "cacheapp").rglob("*.py")
        for found in re.findall(r'"event": "(\w+)"', source.read_text())
    }
    page = (DOCS / "reference" / "log-events.md").read_text()
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == events


def _logged() -> Iterator[tuple[str, str, set[str]]]:
    """Yield event, level and the other fields of each call of a logger that names its event."""
    for source in (ROOT / "cacheapp").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            for given in node.keywords:
                if given.arg == "extra" and isinstance(given.value, ast.Dict):
                    names = [it.value for it in given.value.keys if isinstance(it, ast.Constant)]
                    fields = dict(zip(names, given.value.values, strict=False))
                    event = fields.pop("event", None)
                    if isinstance(event, ast.Constant):
                        yield str(event.value), node.func.attr, set(map(str, fields))


def test_the_reference_has_the_level_and_the_fields_of_each_event() -> None:
    page = (DOCS / "reference" / "log-events.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    found = list(_logged())
    assert len(found) > 30
    wrong = []
    for event, level, fields in found:
        if level in {"debug", "info", "warning", "error", "exception", "critical"}:
            named = "error" if level == "exception" else level
            if named not in rows[event]:
                wrong.append((event, f"is a {named}"))
        wrong += [(event, field) for field in fields if f"`{field}`" not in page]
    assert wrong == []
