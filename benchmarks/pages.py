"""Write the kept results into README and docs: `python -m benchmarks.pages`, at the end of `make bench`.

A page marks where figures belong: what is between `<!-- figures: NAME -->` and `<!-- end of figures -->`
is made from benchmarks/results and never written by hand. A test compares.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import speed_chart
from benchmarks.backends.near_cache import goals as near_goals
from benchmarks.backends.shared_cache import goals
from benchmarks.measuring.report import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "howto" / "choose.md",
)
_REGION = re.compile(
    r"(?<=^<!-- figures: )([\w-]+)( -->\n)(.*?)(?=^<!-- end of figures -->$)",
    re.MULTILINE | re.DOTALL,
)


def read(name: str) -> dict[str, Any]:
    """Return a kept result."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def circumstances(*names: str) -> str:
    """Return a sentence for each kept result: command, date, machine, versions, load, commit."""
    return " ".join(_circumstances(name, read(name)) for name in names)


def _circumstances(name: str, found: dict[str, Any]) -> str:
    commit, _, dirty = found["commit"].partition("-")
    changed = " with uncommitted changes" if dirty else ""
    return (
        f"`{found['command'].partition(' --json')[0]}`, {found['date']}, commit `{commit[:7]}`{changed}, "
        f"Python {found['python']}, {found['processors']} processors, load {found['load_before']:.0f} before "
        f"and {found['load_after']:.0f} after ([samples](../benchmarks/results/{name}.json))."
    )


def _lmdb_samples() -> dict[str, Any]:
    """Return the samples of LMDBCache beside the others; what the run left out, of earlier ones."""
    samples: dict[str, Any] = {}
    for name in ("lmdb_growth", "lmdb_memory", "lmdb_cache"):
        samples |= read(name)["samples"]
    return samples


def _lmdb_figures() -> dict[str, dict[str, float]]:
    found = read("lmdb_cache")
    return goals.figures_of(_lmdb_samples(), found["processes"], found["sizes"])


def _lmdb_goals() -> Iterator[str]:
    yield circumstances("lmdb_cache")
    yield f"Memory: {circumstances('lmdb_memory')}"
    yield ""
    yield from goals.as_markdown(goals.judge(_lmdb_figures(), read("lmdb_cache")["ours"]))


def _lmdb_medians() -> Iterator[str]:
    yield from goals.medians_as_markdown(_lmdb_figures())


def _built_on() -> Iterator[str]:
    """Yield the table of DiskCache and RedisCache beside what they are built on."""
    yield circumstances("disk_cache", "redis_cache")
    yield ""
    yield "| ratio of medians | DiskCache, to diskcache | RedisCache (signed), to django-redis |"
    yield "|---|---|---|"
    disk, redis = (read(name)["microseconds"] for name in ("disk_cache", "redis_cache"))
    for call in dict.fromkeys([*disk, *redis]):
        cells = (
            _ratio(disk.get(call), "ours", "diskcache"),
            _ratio(redis.get(call), "ours, signed", "django-redis"),
        )
        yield f"| {call} | {' | '.join(cells)} |"


def _ratio(by_name: dict[str, dict[str, float]] | None, ours: str, other: str) -> str:
    if by_name is None or ours not in by_name or other not in by_name:
        return "-"
    return f"{by_name[ours]['median'] / by_name[other]['median']:.3g}"


def _near_goals() -> Iterator[str]:
    yield circumstances("near_cache")
    yield ""
    figures = read("near_cache")["figures"]
    yield from goals.as_markdown(goals.judge(figures, near_goals.OURS, near_goals.GOALS))


def _near_medians() -> Iterator[str]:
    yield from goals.medians_as_markdown(read("near_cache")["figures"])


def _hit_ratio() -> Iterator[str]:
    found = read("hit_ratio")
    names = ("LRU", "SIEVE", "FIFO", "LMDBCache")
    yield f"{found['requests']:,} requests for {found['keys']:,} keys. {circumstances('hit_ratio')}"
    yield ""
    yield f"| alpha | room | {' | '.join(names)} |"
    yield "|---" * (len(names) + 2) + "|"
    for row in found["rows"]:
        cells = (f"{row[name]:.4f}" for name in names)
        yield f"| {row['alpha']} | {row['room']:,} | {' | '.join(cells)} |"


def _signing() -> Iterator[str]:
    found = read("signing")["microseconds"]
    stores = ("lmdb", "disk", "redis")
    yield circumstances("signing")
    yield ""
    yield "| microseconds, unsigned and signed | LMDBCache | DiskCache | RedisCache |"
    yield "|---|---|---|---|"
    for call, by_name in found.items():
        pairs = (
            ", ".join(
                f"{by_name[f'{store}, {how}']['median']:.3g}" for how in ("unsigned", "signed")
            )
            for store in stores
        )
        yield f"| {call} | {' | '.join(pairs)} |"


def _observing() -> Iterator[str]:
    kept = read("observing")
    found = kept["microseconds"]
    names = list(found["get"])
    yield circumstances("observing")
    yield (
        f"A `get` of a class that is no longer observed takes {kept['get_no_longer_observed']:.3f} of the time "
        "of one that never was (goal: at most 1.02)."
    )
    yield ""
    yield f"| microseconds of CPU, medians | {' | '.join(names)} | counting adds; goal: below 1 |"
    yield "|---" * (len(names) + 2) + "|"
    for call, by_name in found.items():
        cells = (f"{by_name[name]['median']:.2f}" for name in names)
        yield f"| {call} | {' | '.join(cells)} | {kept['counting_adds_us'][call]:.2f} |"


def _slow_lines() -> Iterator[str]:
    found = read("slow_line")
    yield circumstances("slow_line")
    yield ""
    yield f"| line | bytes sent over bytes needed; goal: at most {found['goal']} |"
    yield "|---|---|"
    for line, result in found["lines"].items():
        verdict = "met" if result["ratio"] <= found["goal"] else "missed"
        yield f"| {line} | {result['ratio']:.4f} in {result['requests']} requests: **{verdict}** |"


def _speed() -> Iterator[str]:
    """Yield README's sentence on speed."""
    medians = dict(speed_chart.bars(speed_chart.MEASURES[0]))
    found = read("lmdb_cache")
    times = [
        f"{medians['our-lmdb']:.3g} µs with LMDBCache",
        *(
            f"{found['summaries'][speed_chart.MEASURES[0]][alias]['median']:.3g} with {name}"
            for alias, name in (
                ("locmem", "LocMemCache"),
                ("diskcache", "diskcache"),
                ("django-redis", "django-redis"),
            )
        ),
    ]
    yield f"A `get` of a small dict took {', '.join(times[:-1])} and {times[-1]}: medians of {found['date']},"
    yield f"{found['processors']} processors, Python {found['python']}, `make bench`."


def _choose() -> Iterator[str]:
    """Yield what a call costs on each backend, for the page that helps to choose one."""
    found = read("lmdb_cache")
    columns = {"LocMemCache": "locmem", "LMDBCache": "our-lmdb", "DiskCache": "our-disk"}
    columns["RedisCache"] = "our-redis"
    yield f"| microseconds, median of {found['date']} | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for measure in ("get, small dict", "get, 64 KiB", "set, small dict", "incr", "request"):
        by_alias = found["summaries"][measure]
        medians = (by_alias.get(alias, {}).get("median") for alias in columns.values())
        cells = (goals.number(it) for it in medians)
        yield f"| {measure} | {' | '.join(cells)} |"


REGIONS: dict[str, Callable[[], Iterator[str]]] = {
    "built-on": _built_on,
    "choose": _choose,
    "hit-ratio": _hit_ratio,
    "lmdb-goals": _lmdb_goals,
    "lmdb-medians": _lmdb_medians,
    "observing": _observing,
    "near-goals": _near_goals,
    "near-medians": _near_medians,
    "signing": _signing,
    "slow-lines": _slow_lines,
    "speed": _speed,
}


def filled(text: str) -> str:
    """Return the text of a page with all marked regions made anew."""
    return _REGION.sub(lambda found: f"{found[1]}{found[2]}{_block(found[1])}", text)


def _block(name: str) -> str:
    return "\n" + "\n".join(REGIONS[name]()) + "\n\n"


def names_in(text: str) -> Sequence[str]:
    """Return the names of the regions of a page."""
    return [found[1] for found in _REGION.finditer(text)]


def main() -> int:
    """Write the pages and the chart; return 0."""
    for page in PAGES:
        text = page.read_text()
        if (new := filled(text)) != text:
            page.write_text(new)
            print(f"{page.relative_to(ROOT)}: new figures")
    speed_chart.PICTURE.write_text(speed_chart.draw())
    return 0


if __name__ == "__main__":
    sys.exit(main())
