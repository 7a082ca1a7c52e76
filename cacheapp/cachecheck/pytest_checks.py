"""The checks that the plugin for pytest runs: one for each property; a workload runs once for all of its."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from cacheapp.cachecheck.examine import (
    ASYNC_SUFFIX,
    OUTAGES,
    PROCESSES,
    PROPERTIES,
    SYNC,
    CheckPlan,
    Examination,
)
from cacheapp.cachecheck.private import NotPrivate, private_stores
from cacheapp.cachecheck.report import proof_text
from cacheapp.cachecheck.run import StoreFailed
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.processes.servers import ServerFailed

_Findings = dict[str, PropertyFinding]
_FOUND: pytest.StashKey[dict[tuple[Any, ...], _Findings]] = pytest.StashKey()


@dataclass(frozen=True)
class Where:
    """What is checked, and how."""

    alias: str = "default"
    subject: str = ""
    seconds: float = 2.0
    private: bool = True
    processes: int = 4
    threads: int = 2


class Check:
    """One property of one cache. The workload behind it runs when its first property is required."""

    def __init__(self, where: Where, workload: str, name: str, *, known: bool) -> None:
        self.where = where
        self.workload = workload
        self.property = name
        self.known = known
        self.finding: PropertyFinding | None = None

    @property
    def id(self) -> str:
        """The name of the cache and of the property."""
        return f"{self.where.subject.rpartition(':')[2] or self.where.alias}: {self.property}"

    def require(self, config: pytest.Config) -> None:
        """Run the workload, unless that was done; skip if the cache has no such operation."""
        known = config.stash.setdefault(_FOUND, {})
        key = (self.where, self.workload)
        if key not in known:
            with _importable(config.rootpath):
                known[key] = _examined(self.where, self.workload)
        self.finding = known[key].get(self.property)
        if self.finding is None or self.finding.verdict is PropertyVerdict.NOT_APPLICABLE:
            pytest.skip(self.finding.why if self.finding else "not part of this check")

    def holds(self) -> None:
        """Fail, with the calls that prove it, unless the property holds.

        For a property that is `known` to be broken, fail if it holds: then it is to be removed there.
        """
        __tracebackhide__ = True
        finding = self.finding
        assert finding is not None, "the check did not run"  # noqa: S101 (pytest's own way to fail)
        if self.known:
            if finding.verdict is PropertyVerdict.BROKEN:
                pytest.xfail(f"known to be broken: {finding.figure}")
            if finding.verdict is PropertyVerdict.HOLDS:
                pytest.fail(f"{self.id} holds, but is among the known ones", pytrace=False)
        if finding.verdict is not PropertyVerdict.HOLDS:
            pytest.fail(self._text(finding), pytrace=False)

    def _text(self, finding: PropertyFinding) -> str:
        parts = (finding.figure, finding.why)
        head = f"{self.id}: {finding.verdict}: {'; '.join(part for part in parts if part)}"
        return f"{head}\n{proof_text(finding)}".rstrip()


class CheckCollector(pytest.Collector):
    """What the tests that `--cachecheck` adds belong to: a class in reports, though in no file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Return nothing: the plugin adds the tests."""
        return iter(())


class CheckItem(pytest.Item):
    """A test that `--cachecheck` adds."""

    def __init__(self, *, check: Check, **how: Any) -> None:
        super().__init__(**how)
        self.check = check

    def runtest(self) -> None:
        """Run the workload and judge the property."""
        self.check.require(self.config)
        self.check.holds()

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Return where the test is: nowhere in a file."""
        return self.config.rootpath, None, self.name


def marked(mark: pytest.Mark | None) -> list[Check]:
    """Return the checks that a mark describes; without a mark, those of the alias `default`."""
    if mark is None:
        return checks_of()
    names = dict(zip(("alias",), mark.args, strict=False))
    return checks_of(**{**names, **mark.kwargs})


def checks_of(*, only: Sequence[str] = (), known: Sequence[str] = (), **where: Any) -> list[Check]:
    """Return a check for each property.

    `only`: names of workloads. `known`: properties that are known to be broken. Raise
    `pytest.UsageError` for a name that does not exist.
    """
    place = Where(**where)
    workloads = [*SYNC, *PROCESSES]
    if not place.subject:
        _require_alias(place.alias)
        workloads += [f"a{name}" for name in SYNC]
    if wrong := set(only) - {*workloads, *OUTAGES}:
        raise pytest.UsageError(
            f"no workload {', '.join(sorted(wrong))}; use {', '.join(workloads)}"
        )
    checks = [
        Check(place, workload, name, known=name in known)
        for workload in workloads
        if not only or workload in only
        for name in _properties(workload)
    ]
    if wrong := set(known) - {one.property for one in checks}:
        raise pytest.UsageError(f"no property {', '.join(sorted(wrong))}")
    return checks


def _require_alias(alias: str) -> None:
    """Raise `pytest.UsageError` unless the settings of a Django project have the alias."""
    try:
        known = list(settings.CACHES)
    except (ImproperlyConfigured, ImportError):
        raise pytest.UsageError(
            f"cachecheck of the alias {alias} needs the settings of a Django project "
            "(DJANGO_SETTINGS_MODULE). For a cache of another library, name the function that makes it: "
            "--cachecheck=package.module:function, or subject= of the mark"
        ) from None
    if alias not in known:
        raise pytest.UsageError(f"no alias {alias}; CACHES has {', '.join(known)}")


def _properties(workload: str) -> list[str]:
    """Return the names of a workload's properties."""
    if workload in PROPERTIES:
        return list(PROPERTIES[workload])
    return [name + ASYNC_SUFFIX for name in PROPERTIES[workload.removeprefix("a")]]


def _examined(where: Where, workload: str) -> _Findings:
    """Run a workload; return its findings by property."""
    plan = CheckPlan(
        processes=where.processes,
        threads=where.threads,
        seconds=where.seconds,
        private=where.private,
        only=(workload,),
    )
    try:
        with _overrides(where) as overrides:
            report = Examination(where.alias, "", plan, overrides, subject=where.subject).run()
    except (StoreFailed, ServerFailed, NotPrivate) as exc:
        names = _properties(workload)
        return {
            name: PropertyFinding(name, PropertyVerdict.UNKNOWN, "", str(exc)) for name in names
        }
    return {one.property: one for one in report.findings}


@contextlib.contextmanager
def _importable(directory: Path) -> Iterator[None]:
    """Let the clients import from the directory of the project, as the command does."""
    before = sys.path.copy()
    sys.path.append(str(directory))
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _overrides(where: Where) -> Iterator[dict[str, Any]]:
    """Yield the settings of a private store, if one is wanted."""
    if where.subject or not where.private:
        yield {}
        return
    with private_stores([where.alias]) as stores:
        yield stores.overrides
