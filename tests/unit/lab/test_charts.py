import dataclasses
import re
import xml.etree.ElementTree as ET

import pytest

from cacheapp.lab.charts import WIDTH, alone, chart, number, subtitle
from cacheapp.lab.results import Look, Measure, Panel
from tests.unit.lab.test_results import RESULT

SVG = "{http://www.w3.org/2000/svg}"
BARS, LINES = RESULT.panels


def parsed(drawing: str) -> ET.Element:
    return ET.fromstring(drawing)  # noqa: S314 (our own)


def texts(drawing: str) -> list[str]:
    return [it.text or "" for it in parsed(drawing).iter() if it.tag.endswith("text")]


@pytest.mark.parametrize("panel", [BARS, LINES], ids=lambda panel: panel.title)
def test_a_chart_in_a_page_has_no_script_no_style_and_the_width_of_its_place(panel: Panel) -> None:
    drawing = parsed(chart(panel))
    assert {it.tag for it in drawing.iter()} <= {"svg", "g", "rect", "line", "circle", "text"}
    assert not {key for it in drawing.iter() for key in it.attrib if key in {"style", "onload"}}
    assert (drawing.get("width"), drawing.get("viewBox")) == ("100%", None)
    places = [it.get(key, "0%") for it in drawing.iter("line") for key in ("x1", "x2")]
    assert places
    assert all(re.fullmatch(r"[\d.]+%", it) and float(it[:-1]) <= 100 for it in places)


def test_names_from_a_record_are_text() -> None:
    planted = Panel("<script>", "s", (Measure("<script>alert(1)</script>", (1.0,)),))
    assert "<script>" not in chart(planted)
    assert texts(chart(planted))[0] == "<script>alert(1)</script>"


def test_bars_begin_at_zero_and_their_lengths_are_to_scale() -> None:
    panel = Panel("", "s", (Measure("one", (1.0,)), Measure("four", (4.0,))))
    bars = [it for it in parsed(chart(panel)).iter("rect") if it.get("class") == "plain"]
    assert [it.get("x", "0") for it in bars] == ["0", "0"]
    one, four = (float(it.attrib["width"].rstrip("%")) for it in bars)
    assert four == pytest.approx(4 * one, rel=0.01)


def test_right_and_broken_differ_in_colour_and_in_sign() -> None:
    measures = [Measure(look.value, (5.0,), look=look) for look in Look]
    drawing = chart(Panel("", "", tuple(measures)))
    classes = [it.get("class") for it in parsed(drawing).iter("rect")]
    assert [it for it in classes if it != "track"] == [look.value for look in Look]
    assert texts(drawing)[1::2] == ["5", "5", "5 ✓", "5 ✕", "5 !"]


def test_where_all_is_zero_a_sentence_takes_the_place_of_the_chart() -> None:
    panel = Panel("lost", "", (Measure("a", (0.0, 0.0)), Measure("b", (0.0,))), expected=0.0)
    assert chart(panel) == ""
    assert subtitle(panel) == "0 for each: a, b"
    drawn = parsed(alone(dataclasses.replace(RESULT, panels=(panel,))))
    assert not list(drawn.iter(f"{SVG}rect"))


def test_a_reader_without_eyes_hears_every_figure() -> None:
    label = parsed(chart(BARS)).attrib["aria-label"]
    assert label == "bars: threads 2 s"
    assert "processes, 10 5 ms" in parsed(chart(LINES)).attrib["aria-label"]


def test_lines_pass_through_points_on_logarithmic_axes() -> None:
    measures = tuple(
        Measure("", (value,), group="g", at=at) for at, value in ((1, 1), (10, 10), (100, 100))
    )
    points = list(parsed(chart(Panel("", "", measures, LINES.kind))).iter("circle"))[:3]
    xs = [float(it.attrib["cx"].rstrip("%")) for it in points]
    ys = [float(it.attrib["cy"]) for it in points]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.1)
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.1)
    assert ys[0] > ys[2]


def test_a_file_fits_a_phone_and_has_colours_for_light_and_dark() -> None:
    drawing = alone(RESULT)
    root = parsed(drawing)
    assert root.tag == f"{SVG}svg"
    assert root.attrib["width"] == str(WIDTH)
    assert "prefers-color-scheme:dark" in drawing
    assert {"bars", "lines", "threads", "processes"} <= set(texts(drawing))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (5.0, "5"), (8000.0, "8,000"), (0.0339, "0.0339"), (1.1, "1.10"), (734.4, "734")],
)
def test_numbers_have_three_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text
