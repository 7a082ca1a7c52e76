"""Summaries, ratios and tables of samples. Pure."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

Summary = dict[str, float]
_COLUMNS = ("median", "p90", "p99", "max")


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest of the sorted samples that at least this part of them does not exceed."""
    if not ordered:
        raise ValueError("no samples; expected at least one")
    # Rounded, because 0.999 of 1,000 is a hair above 999 in floating point.
    return ordered[max(0, math.ceil(round(part * len(ordered), 9)) - 1)]


def summary(samples: Sequence[float]) -> Summary:
    """Return median, p90, p99, maximum and how many samples there were."""
    ordered = sorted(samples)
    return {
        "median": statistics.median(ordered),
        "p90": quantile(ordered, 0.9),
        "p99": quantile(ordered, 0.99),
        "max": ordered[-1],
        "samples": len(ordered),
    }


def summaries(
    samples: Mapping[str, Mapping[str, Sequence[float]]],
) -> dict[str, dict[str, Summary]]:
    """Return the summaries by operation and variant; an operation nobody did is left out."""
    return {
        operation: {name: summary(found) for name, found in by_name.items()}
        for operation, by_name in samples.items()
        if by_name
    }


def table(
    unit: str,
    results: Mapping[str, Mapping[str, Summary]],
    base: str,
    limits: Mapping[str, Mapping[str, float]] | None = None,
) -> Iterator[str]:
    """Yield a line for each operation and variant; `ratio` is that of the medians to `base`'s.

    `limits` are ratios, by operation and variant, that are printed beside what was found.
    """
    heads = "".join(f"{column:>13}" for column in _COLUMNS)
    wide = 2 + max((len(name) for by_name in results.values() for name in by_name), default=0)
    high = 2 + max(len(operation) for operation in (*results, unit))
    yield f"{unit:<{high}}{'':<{wide}}{heads}   ratio to {base}"
    for operation, by_name in results.items():
        for name, found in by_name.items():
            numbers = "".join(f"{found[column]:>13,.2f}" for column in _COLUMNS)
            ratio = _ratio(by_name, name, base)
            limit = (limits or {}).get(operation, {}).get(name)
            mark = f" (limit {limit:g})" if limit is not None else ""
            yield f"{operation:<{high}}{name:<{wide}}{numbers}   {ratio}{mark}"


def _ratio(by_name: Mapping[str, Summary], name: str, base: str) -> str:
    if base not in by_name or not by_name[base]["median"]:
        return "-"
    return f"{by_name[name]['median'] / by_name[base]['median']:.2f}"
