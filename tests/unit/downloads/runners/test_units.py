import pytest
from rich.cells import cell_len

from cacheapp.downloads.runners.units import format_bytes, format_rate, format_seconds, shorten


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3000 * 1024**5, "3000.0 PiB"),
    ],
)
def test_sizes_are_binary(count: int, shown: str) -> None:
    assert format_bytes(count) == shown


def test_an_unknown_rate_is_a_dash() -> None:
    assert [format_rate(rate) for rate in (None, 0, 2048.0)] == ["-", "-", "2.0 KiB/s"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("name", "cells", "shown"),
    [
        ("short.bin", 9, "short.bin"),
        ("a-long-name-07.bin", 9, "a-lo\u2026.bin"),
        ("a-long-name-07.bin", 10, "a-lo\u20267.bin"),
        ("\u6f22" * 5, 7, "\u6f22\u2026\u6f22"),
        ("\x1b[2J", 9, "?[2J"),
        ("name", 1, "\u2026"),
        ("name", 0, ""),
    ],
)
def test_a_name_is_shortened_in_its_middle(name: str, cells: int, shown: str) -> None:
    assert shorten(name, cells) == shown
    assert cell_len(shorten(name, cells)) <= max(cells, 0)
