"""The pages are English: a project that formats numbers in its own language changes nothing in them.

A comma in a number would break a coordinate of a drawing.
"""

from pathlib import Path

import pytest
from django.template import engines
from django.template.backends.django import Template as BackendTemplate
from django.template.base import TextNode
from django.template.defaulttags import LoadNode
from django.template.loader import get_template
from django.templatetags.l10n import LocalizeNode
from pytest_django.fixtures import Settings

TEMPLATES = Path(__file__).resolve().parents[3] / "cacheapp/templates"
NAMES = sorted(
    str(path.relative_to(TEMPLATES))
    for path in TEMPLATES.rglob("*.html")
    if "{% extends" not in path.read_text()
)


@pytest.fixture(autouse=True)
def _german(settings: Settings) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    staticfiles = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": staticfiles}
    settings.LANGUAGE_CODE = "de"  # the settings of the tests have USE_I18N = False


def _rendered(source: str) -> str:
    return str(engines["django"].from_string(source).render({"number": 1234.5}))


def test_a_number_on_a_page_is_not_localized() -> None:
    assert _rendered("{{ number }}") == "1.234,5"
    page = "{% extends 'cacheapp/base.html' %}{% block main %}<i>{{ number }}</i>{% endblock %}"
    assert "<i>1234.5</i>" in _rendered(page)


@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_template_is_rendered_without_localization(name: str) -> None:
    template = get_template(name)
    assert isinstance(template, BackendTemplate)
    loaded = [node for node in template.template.nodelist if not isinstance(node, LoadNode)]
    nodes = [node for node in loaded if not isinstance(node, TextNode) or node.s.strip()]
    (whole,) = nodes
    assert isinstance(whole, LocalizeNode)
    assert whole.use_l10n is False


def test_no_template_formats_a_number_for_the_language() -> None:
    found = [
        path.name
        for path in TEMPLATES.rglob("*.html")
        if "|floatformat" in (text := path.read_text())
        and text.count("|floatformat") != text.count('u"')
    ]
    assert found == []
