"""`docs/claims.md`: all claims in one table, from a real run."""

from collections.abc import Sequence

from cacheapp.lab.experiments.results import Result

_IMPRECISE = ()


def claims_page(results: Sequence[Result], command: str) -> str:
    """Return the page."""
    return command + str(len(results))
