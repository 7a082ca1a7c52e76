"""The findings for CI: JUnit XML, and annotations of GitHub Actions."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import TextIO

from cacheapp.cachecheck.report import Expected, each, proof_text
from cacheapp.cachecheck.verdicts import AliasReport, PropertyFinding, PropertyVerdict

_LEVELS = {PropertyVerdict.BROKEN: "error", PropertyVerdict.UNKNOWN: "warning"}


def write_junit(reports: Sequence[AliasReport]) -> str:
    """Return JUnit XML: a test suite for each alias, a test case for each property.

    BROKEN is a failure, UNKNOWN an error, NOT APPLICABLE skipped.
    """
    root = ET.Element("testsuites", name="cachecheck")
    for report in reports:
        count = [one.verdict for one in report.findings].count
        suite = ET.SubElement(
            root,
            "testsuite",
            name=report.alias,
            tests=str(len(report.findings)),
            failures=str(count(PropertyVerdict.BROKEN)),
            errors=str(count(PropertyVerdict.UNKNOWN)),
            skipped=str(count(PropertyVerdict.NOT_APPLICABLE)),
            time=f"{report.seconds:.1f}",
        )
        for finding in report.findings:
            _case(suite, report, finding)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, report: AliasReport, finding: PropertyFinding) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=f"cachecheck.{report.alias}", name=finding.property
    )
    kinds = {
        PropertyVerdict.BROKEN: "failure",
        PropertyVerdict.UNKNOWN: "error",
        PropertyVerdict.NOT_APPLICABLE: "skipped",
    }
    if finding.verdict in kinds:
        outcome = ET.SubElement(case, kinds[finding.verdict], message=_said(finding))
        outcome.text = proof_text(finding)
    elif finding.figure:
        ET.SubElement(case, "system-out").text = finding.figure


def _said(finding: PropertyFinding) -> str:
    return "; ".join(part for part in (finding.figure, finding.why) if part) or finding.verdict


def write_annotations(
    reports: Sequence[AliasReport], out: TextIO, expected: Expected | None = None
) -> None:
    """Print a workflow command of GitHub Actions for each property that is broken or unknown.

    What is as expected is a notice, so that errors are what fails the run.
    """
    for report in reports:
        for finding in report.findings:
            if level := _LEVELS.get(finding.verdict):
                wanted = (expected or {}).get(report.alias, {}).get(finding.property, "")
                level = "notice" if finding.verdict in each(wanted) else level
                title = _property(f"cachecheck {report.alias}: {finding.property}")
                text = f"{_said(finding)}\n{proof_text(finding)}".strip()
                out.write(f"::{level} title={title}::{_data(text)}\n")


def _data(text: str) -> str:
    """Return text for the message of a workflow command, which is one line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
