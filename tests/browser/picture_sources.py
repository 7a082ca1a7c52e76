"""What the pictures of pages show: a digest of each template and of the style rules that apply to it.

Rules for classes that a page does not have are left out, so a change to another page's look does not
age a picture.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.system.conftest import ROOT

MANIFEST = ROOT / "docs" / "pictures" / "sources.json"
TEMPLATES = ROOT / "cacheapp" / "templates"
STYLE = ROOT / "cacheapp" / "static" / "cacheapp" / "style.css"
SHOWN = {
    "show-me.gif": "cacheapp/caches.html",
    "caches.png": "cacheapp/parts/overview.html",
    "download.png": "cacheapp/download.html",
}
"""The template of the page, or of the part of it, that a picture shows."""
_LOOKS = {"good", "bad", "warn", "busy", "first", "danger", "minor"}  # classes from views
_PART = re.compile(r'{% (?:include|extends) "([\w/.]+)" %}')
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_CLASS = re.compile(r"\.([A-Za-z][\w-]*)")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

Digests = dict[str, dict[str, str]]


def digests(templates: Path = TEMPLATES, style: Path = STYLE) -> Digests:
    """Return, for each picture, the digests of what it shows, by name."""
    return {
        picture: _digests(parts(template, templates), style.read_text())
        for picture, template in SHOWN.items()
    }


def kept() -> Digests:
    """Return the digests of when the pictures were taken."""
    found: Digests = json.loads(MANIFEST.read_text())
    return found


def older_than(kept: Digests, now: Digests) -> list[str]:
    """Return a sentence for each picture that shows what is no longer so."""
    return [
        f"{picture} is older than {', '.join(changed)}"
        for picture, sources in now.items()
        if (changed := _differing(kept.get(picture, {}), sources))
    ]


def _differing(kept: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in sorted({*kept, *now}) if kept.get(name) != now.get(name)]


def parts(template: str, templates: Path) -> dict[str, str]:
    """Return the text of a template and of all that it includes or extends, by name."""
    text = (templates / template).read_text()
    found = {template: text}
    for name in _PART.findall(text):
        found |= parts(name, templates)
    return found


def _digests(shown: Mapping[str, str], style: str) -> dict[str, str]:
    words = _LOOKS.union(*(re.findall(r"[A-Za-z][\w-]*", text) for text in shown.values()))
    rules = "\n".join(rules_for(words, style))
    texts = {**shown, "style.css": rules}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}


def rules_for(classes: set[str], style: str) -> Iterator[str]:
    """Yield the rules that can apply to elements with these classes only, without white space."""
    plain = _COMMENT.sub("", style)
    yield from re.findall(r"@media[^{]+", plain)
    for selectors, body in _RULE.findall(plain):
        if any(classes.issuperset(_CLASS.findall(one)) for one in selectors.split(",")):
            yield f"{' '.join(selectors.split())} {' '.join(body.split())}"
