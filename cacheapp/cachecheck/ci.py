"""The findings for CI: JUnit XML, and annotations of GitHub Actions."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import TextIO

from cacheapp.cachecheck.report import Expected, Verdicts, difference, proof_text
from cacheapp.cachecheck.verdicts import AliasReport, PropertyFinding, PropertyVerdict

_LEVELS = {PropertyVerdict.BROKEN: "error", PropertyVerdict.UNKNOWN: "warning"}


def write_junit(reports: Sequence[AliasReport], expected: Expected | None = None) -> str:
    """Return JUnit XML: a test suite for each alias, a test case for each property.

    BROKEN is a failure, UNKNOWN an error, NOT APPLICABLE skipped. With expected verdicts, what differs
    from them is a failure, and nothing else.
    """
    root = ET.Element("testsuites", name="cachecheck")
    for report in reports:
        suite = ET.SubElement(root, "testsuite", name=report.alias)
        wanted = None if expected is None else expected.get(report.alias, {})
        for finding in report.findings:
            _case(suite, report, finding, wanted)
        _missing(suite, report, wanted or {})
        suite.set("tests", str(len(suite)))
        for kind, counted in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            suite.set(counted, str(len(suite.findall(f"testcase/{kind}"))))
        suite.set("time", f"{report.seconds:.1f}")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


_KINDS = {
    PropertyVerdict.BROKEN: "failure",
    PropertyVerdict.UNKNOWN: "error",
    PropertyVerdict.NOT_APPLICABLE: "skipped",
}


def _class(report: AliasReport) -> str:
    return f"cachecheck.{report.alias}"


def _case(
    suite: ET.Element, report: AliasReport, finding: PropertyFinding, wanted: Verdicts | None
) -> None:
    case = ET.SubElement(suite, "testcase", classname=_class(report), name=finding.property)
    kind, message = _KINDS.get(finding.verdict), _said(finding)
    if wanted is not None:
        if differs := difference(finding.verdict, finding.property, wanted):
            kind, message = "failure", _said(finding, differs)
        elif kind != "skipped":
            kind, message = None, _said(finding, f"{finding.verdict}, as expected")
    if kind:
        outcome = ET.SubElement(case, kind, message=message)
        outcome.text = proof_text(finding)
    elif wanted is not None or finding.figure:
        ET.SubElement(case, "system-out").text = message


def _missing(suite: ET.Element, report: AliasReport, wanted: Verdicts) -> None:
    """Add a failure for each property that was expected and not checked."""
    checked = {finding.property for finding in report.findings}
    for name in wanted:
        if name not in checked:
            case = ET.SubElement(suite, "testcase", classname=_class(report), name=name)
            ET.SubElement(case, "failure", message=difference("missing", name, wanted))


def _said(finding: PropertyFinding, first: str = "") -> str:
    found = "; ".join(part for part in (first, finding.figure, finding.why) if part)
    return found or finding.verdict


def write_annotations(
    reports: Sequence[AliasReport], out: TextIO, expected: Expected | None = None
) -> None:
    """Print a workflow command of GitHub Actions for each property that is broken or unknown.

    With expected verdicts, what differs from them is an error, and what is as expected a notice.
    """
    for report in reports:
        for finding in report.findings:
            level, text = _LEVELS.get(finding.verdict), _said(finding)
            if expected is not None:
                wanted = expected.get(report.alias, {})
                if differs := difference(finding.verdict, finding.property, wanted):
                    level, text = "error", _said(finding, differs)
                elif level:
                    level = "notice"
            if level:
                title = _property(f"cachecheck {report.alias}: {finding.property}")
                text = f"{text}\n{proof_text(finding)}".strip()
                out.write(f"::{level} title={title}::{_data(text)}\n")


def _data(text: str) -> str:
    """Return text for the message of a workflow command, which is one line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
