import dataclasses
import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from cacheapp import clock
from cacheapp.downloads.plan import JobProgress
from cacheapp.downloads.runners.display import MAX_FILES_SHOWN, Display, bars
from cacheapp.downloads.runners.foreground import Snapshot


def _snapshot(*names: str) -> Snapshot:
    active_files: list[tuple[str, int, int | None]] = [(name, 512, 1024) for name in names]
    return Snapshot(
        JobProgress(3, 1, 4096), 10, listed_all=False, active_files=active_files, retries=2
    )


def _shown(console: Console, output: io.StringIO, *names: str) -> str:
    with Display(console) as display:
        display.show(_snapshot(*names))
    return output.getvalue()


def test_a_terminal_sees_files_failures_and_the_listing() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, color_system=None)
    shown = _shown(console, output, "a.bin")
    for text in ("4 of 10 files, 1 failed, 2 retried, listing…", "a.bin", "512 B of 1.0 KiB"):
        assert text in shown


def test_a_hostile_name_is_shown_as_it_is() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, color_system=None)
    assert "[/red]{0}[bold" in _shown(console, output, "[/red]{0}[bold")


def test_only_some_of_many_files_are_shown() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, color_system=None)
    shown = _shown(console, output, *(f"file-{n}" for n in range(200)))
    assert f"file-{MAX_FILES_SHOWN - 1}" in shown
    assert f"file-{MAX_FILES_SHOWN} " not in shown


@pytest.mark.parametrize("name", ["n" * 62 + "-07.bin", "\u6f22" * 40 + ".bin"])
def test_long_names_leave_room_for_bars_and_figures_at_80_columns(name: str) -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, color_system=None)
    progress = JobProgress(3, 1, 800 * 2**30, 999 * 2**30)
    snapshot = dataclasses.replace(
        _snapshot(name), progress=progress, rate_bps=999.9 * 2**20, eta_s=3599
    )
    console.print(bars(snapshot, 80))
    lines = output.getvalue().splitlines()
    assert len(lines) == 3
    assert all(cell_len(line) <= 80 for line in lines)
    assert all(line.count("\u2501") + line.count("\u2578") >= 5 for line in lines)
    assert lines[1].rstrip().endswith("800.0 GiB of 999.0 GiB, 999.9 MiB/s, 59 min 59 s left")
    assert lines[2].rstrip().endswith("512 B of 1.0 KiB")
    shown = lines[2].partition(" ")[0]
    assert "\u2026" in shown
    assert 31 <= cell_len(shown) <= 32
    assert shown.endswith(".bin")


def test_what_is_no_terminal_sees_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    output, now = io.StringIO(), [100.0]
    monkeypatch.setattr(clock, "monotonic_s", lambda: now[0])
    with Display(Console(file=output, width=80)) as display:
        for now[0] in (101.0, 105.5, 106.0, 111.0):
            display.show(_snapshot("a.bin"))
    line = "4 of 10 files, 1 failed, 2 retried, listing…, 4.0 KiB, -"
    assert output.getvalue() == f"{line}\n{line}\n"


def test_a_quiet_console_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    output, now = io.StringIO(), [100.0]
    monkeypatch.setattr(clock, "monotonic_s", lambda: now[0])
    with Display(Console(file=output, quiet=True, force_terminal=True)) as display:
        now[0] = 200.0
        display.show(_snapshot("a.bin"))
    assert output.getvalue() == ""
