"""The filters of the templates: exact times without JavaScript, and names that are wrapped."""

import datetime as dt

import pytest

from cacheapp.templatetags.cacheapp_words import (
    cacheapp_ago,
    cacheapp_dotted,
    cacheapp_time,
)

EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    "moment",
    [dt.datetime(2026, 11, 30, 3, 4, 5, tzinfo=EAST), "2026-11-29T21:34:05+00:00"],
    ids=["datetime", "ISO"],
)
def test_an_exact_time_is_in_utc_and_says_so(moment: dt.datetime | str) -> None:
    assert cacheapp_time(moment) == (
        '<time datetime="2026-11-29T21:34:05+00:00" data-exact>2026-11-29 21:34:05 UTC</time>'
    )


def test_a_relative_time_has_the_exact_one_on_hover() -> None:
    found = cacheapp_ago(dt.datetime(2026, 11, 30, 3, 4, 5, tzinfo=EAST))
    assert 'title="2026-11-29 21:34:05 UTC"' in found
    assert " ago" in found or ">now<" in found


def test_no_time_is_a_dash() -> None:
    assert cacheapp_time(None) == cacheapp_ago(None) == "\N{EN DASH}"


def test_a_dotted_name_is_wrapped_before_its_dots_and_escaped() -> None:
    assert cacheapp_dotted("a.b<i>.C") == "a<wbr>.b&lt;i&gt;<wbr>.C"
