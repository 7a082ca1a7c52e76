"""What all benchmarks share: how variants take turns, and what is kept of what was measured.

rounds      turns and timed calls
figures     summaries, ratios and tables of them: pure
report      the circumstances, the command line, the file, the progress
processes   how processes are started; preloaded is what they begin with
values      values and calls that several benchmarks measure
"""

from benchmarks.measuring.figures import Summary, quantile, summaries, summary, table
from benchmarks.measuring.report import (
    ROOT,
    command_line,
    progress,
    read_amount,
    set_up_django,
    write_report,
)
from benchmarks.measuring.rounds import (
    Call,
    Samples,
    Turn,
    clock_us,
    compare_calls,
    take_turns,
    time_calls,
)

__all__ = [
    "ROOT",
    "Call",
    "Samples",
    "Summary",
    "Turn",
    "clock_us",
    "command_line",
    "compare_calls",
    "progress",
    "quantile",
    "read_amount",
    "set_up_django",
    "summaries",
    "summary",
    "table",
    "take_turns",
    "time_calls",
    "write_report",
]
