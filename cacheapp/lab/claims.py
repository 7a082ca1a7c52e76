"""Write `docs/claims.md`: all claims in one table, with the measurements of a real run."""

from collections.abc import Iterator, Sequence

from cacheapp.lab.charts import name, number
from cacheapp.lab.load import BUSY_FIGURE
from cacheapp.lab.results import Panel, Result

_IMPRECISE = (
    (
        "It describes 5 downloads, and its listings start 5 threads in one place and 10 in another; the "
        "lab measures 5 downloads, and the creation of both 5 and 10 threads."
    ),
    (
        "5.01 s are 5 downloads of 5 s on a line that is otherwise idle; what creating threads and "
        "connecting adds grows with the number of files."
    ),
    (
        "“Racing conditions will not happen in multiprocessing” is right for variables in memory, because "
        "each process has its own. It is wrong for everything that processes share: files, databases, caches."
    ),
    (
        "That only one thread executes at a time does not make a statement atomic: see *races between "
        "threads*. Whether a bare `counter += 1` loses updates depends on the version of Python."
    ),
    "“Too many threads” has no number: it depends on whether they wait or compute.",
)


def claims_page(results: Sequence[Result], command: str) -> str:
    """Return the page in Markdown; drawings are expected in `lab/` beside it."""
    lines = [
        "# Claims about threads and processes, measured",
        "",
        "The claims are those of an article about threads, processes and Django's cache.",
        "",
        *_about(results, command),
        "",
        "| experiment | claim | here | measured |",
        "|---|---|---|---|",
        *_rows(results),
        "",
        (
            "**Here** holds for this run on this machine. `UNKNOWN`: it could not be measured, or the "
            "figures decide neither way, or other programs can have caused them. All samples are in "
            "[lab/results.json](lab/results.json). [lab](reference/lab.md) explains how it is measured and how to run it "
            "yourself."
        ),
        "",
        "## Where the article is imprecise",
        "",
        *(f"- {sentence}" for sentence in _IMPRECISE),
        "",
    ]
    for result in results:
        lines += _section(result)
    return "\n".join(lines).rstrip() + "\n"


def _about(results: Sequence[Result], command: str) -> list[str]:
    where = results[0].about
    versions = ", ".join(f"{name} {version}" for name, version in where.versions.items())
    seconds = sum(result.seconds for result in results)
    return [
        (
            f"Made by `{command}` on {where.date[:10]}, in {seconds:.0f} seconds: {where.machine}; "
            f"{where.python}; {where.kernel}; {versions}. {_load(results)} Do not edit this page: run the "
            "command again."
        ),
    ]


def _load(results: Sequence[Result]) -> str:
    """Return how busy other programs kept the machine beside the experiments."""
    others = [result.about.others or 0.0 for result in results]
    cores = results[0].about.cores
    unknown = [result.name for result in results if _is_busy(result)]
    used = f"Other programs used {min(others):.1f} to {max(others):.1f} of {cores} cores beside it."
    if not unknown:
        return used
    return (
        f"{used} What that can cause is `UNKNOWN` ({', '.join(unknown)}): run it again on a quieter "
        "machine."
    )


def _is_busy(result: Result) -> bool:
    return any(finding.figure == BUSY_FIGURE for finding in result.findings)


def _rows(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        for finding in result.findings:
            cells = (
                f"[{result.name}](#{result.name})",
                finding.claim,
                f"**{finding.verdict}**",
                finding.why,
            )
            yield f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _section(result: Result) -> list[str]:
    lines = [
        f"## {result.name}",
        "",
        f"{result.title}. {result.claim[0].upper()}{result.claim[1:]}",
        "",
    ]
    if result.panels:
        lines += [f"![What was measured, as the tables below](lab/{result.name}.svg)", ""]
    for panel in result.panels:
        lines += [*_table(panel), ""]
    lines += [f"- {note}" for note in result.notes]
    code = result.code.rstrip()
    return [*lines, "", "What is timed:", "", "```python", code, "```", ""]


def _table(panel: Panel) -> Iterator[str]:
    unit = f", {panel.unit}" if panel.unit else ""
    yield f"| {panel.title} | median{unit} | spread | runs |"
    yield "|---|--:|--:|--:|"
    for one in panel.measures:
        spread = " to ".join(map(number, one.spread)) if len(one.samples) > 1 else ""
        yield f"| {_cell(name(one))} | {number(one.median)} | {spread} | {len(one.samples)} |"
