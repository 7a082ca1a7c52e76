import io

from rich.console import Console

from cacheapp.downloads.plan import JobProgress
from cacheapp.downloads.runners.display import MAX_FILES_SHOWN, Display
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
    for text in ("4/10", "1 failed", "2 retried", "listing…", "a.bin"):
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


def test_what_is_no_terminal_sees_no_bars() -> None:
    output = io.StringIO()
    assert _shown(Console(file=output, width=100), output, "a.bin").strip() == ""
