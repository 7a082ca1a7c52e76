from pathlib import Path

from cacheapp.cachecheck.examine import PROPERTIES
from cacheapp.cachecheck.meanings import MEANINGS, link
from tests.unit.test_docs import ROOT, _anchors


def test_every_property_says_what_it_means_in_the_report_and_in_the_docs() -> None:
    names = {name for own in PROPERTIES.values() for name in own}
    assert names == set(MEANINGS)
    for name, meaning in MEANINGS.items():
        file, _, anchor = link(name).partition("#")
        page = Path(ROOT / file)
        assert anchor in _anchors(page)
        text = " ".join(page.read_text().split())
        assert meaning.site in text
        assert meaning.fix in text
