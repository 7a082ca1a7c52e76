"""Sphinx's configuration of `make docs`: README and docs/ as they are, without any asset from outside.

The pages are written for GitHub too, so the navigation is made here, from the tables of docs/index.md.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

project = "cacheapp"
author = "the contributors of cacheapp"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**.md"]
myst_heading_anchors = 4  # the anchors that GitHub makes
nitpicky = True
highlight_language = "none"  # an output, where no language is named

html_theme = "furo"
html_title = f"cacheapp {release}"
html_copy_source = html_show_sourcelink = html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}

_SECTIONS = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_LINKS = re.compile(r"\]\(([\w./-]+)\.md\)")


def _toctree(caption: str, pages: list[str]) -> str:
    return "\n".join(
        ["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]
    )


def _add_navigation(_app: Any, name: str, text: list[str]) -> None:
    """Append to the index the pages that each section names, and to other pages their sub-pages."""
    if name == root_doc:
        sections = _SECTIONS.findall(text[0])
        text[0] += "".join(
            _toctree(caption, list(dict.fromkeys(_LINKS.findall(body))))
            for caption, body in sections
            if _LINKS.search(body)
        ) + _toctree("The project", ["../README", "../CONTRIBUTING", "../SECURITY"])
    elif name == "docs/howto/migrate":
        text[0] += _toctree("From", list(dict.fromkeys(_LINKS.findall(text[0]))))


def setup(app: Any) -> None:
    """Register the navigation."""
    app.connect("source-read", _add_navigation)
