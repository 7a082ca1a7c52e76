import xml.etree.ElementTree as ET

import pytest

from cacheapp.lab.charts import alone, drawn_apart, number, spec
from tests.unit.lab.test_results import RESULT

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawing() -> str:
    """The drawing, made in another process: its engine's threads do not go with our forks."""
    return drawn_apart(RESULT)


def texts(drawing: str) -> list[str]:
    return [it.text or "" for it in ET.fromstring(drawing).iter(f"{SVG}text")]  # noqa: S314


def test_a_drawing_can_stand_in_a_page_with_a_strict_policy(drawing: str) -> None:
    names = {it.tag.removeprefix(SVG) for it in ET.fromstring(drawing).iter()}  # noqa: S314
    assert not names & {"script", "style", "foreignObject", "image"}
    attributes = {key for it in ET.fromstring(drawing).iter() for key in it.attrib}  # noqa: S314
    assert not {it for it in attributes if it == "style" or it.startswith("on")}


def test_its_text_is_text_in_the_colour_of_the_page(drawing: str) -> None:
    assert {"threads", "2 s", "processes", "bars", "lines"} <= set(texts(drawing))
    fills = {it.get("fill") for it in ET.fromstring(drawing).iter(f"{SVG}text")}  # noqa: S314
    assert fills == {"currentColor"}


def test_it_fits_a_telephone(drawing: str) -> None:
    assert float(ET.fromstring(drawing).attrib["width"]) <= 360  # noqa: S314


def test_a_file_has_colours_for_light_and_dark(drawing: str) -> None:
    assert "prefers-color-scheme:dark" in alone(drawing)
    assert ET.fromstring(alone(drawing)).tag == f"{SVG}svg"  # noqa: S314


def test_bars_begin_at_zero() -> None:
    layers = spec(RESULT)["vconcat"][0]["layer"]
    bars = next(it for it in layers if it["mark"]["type"] == "bar")
    assert bars["encoding"]["x"]["scale"]["domain"][0] == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (5.0, "5"), (8000.0, "8,000"), (0.0339, "0.0339"), (1.1, "1.10"), (734.4, "734")],
)
def test_numbers_have_three_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text
