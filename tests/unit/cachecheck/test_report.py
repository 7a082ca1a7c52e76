import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from cacheapp.cachecheck.ci import write_annotations, write_junit
from cacheapp.cachecheck.report import (
    Verdicts,
    as_json,
    differences,
    print_report,
    read_expected,
    verdicts,
)
from cacheapp.cachecheck.verdicts import AliasReport, PropertyFinding, PropertyVerdict, plain
from tests.unit.consistency.histories import op

LANES = (op("p1", "set", 0, 1_000_000, 2), op("p2", "get", 2_000_000, 3_000_000, result=1))
STALE = PropertyFinding("one order", PropertyVerdict.BROKEN, "1 of 9 reads stale", "because", LANES)
REPORTS = [
    AliasReport("bad", "some.Cache", (STALE, plain("locks", [], "0 of 9")), 1.0, 12_345),
    AliasReport("good", "some.Cache", (plain("one order", [], "0 of 9 reads stale"),), 1.0),
]


def test_the_table_names_each_property_once_and_the_proof_stands_below() -> None:
    out = io.StringIO()
    print_report(REPORTS, out)
    printed = out.getvalue()
    assert printed.count("│ one order") == 1
    assert "│ BROKEN             │ HOLDS" in printed
    assert "bad: one order: BROKEN: because" in printed
    assert "On a site: A page shows an old value after another process" in printed
    assert "Usual fix: Use one store" in printed
    assert "docs/reference/cachecheck.md#one-order" in printed
    assert printed.count("On a site") == 1, "only what is broken is explained"
    assert "│ calls per second │ 12,345" in printed
    assert "process 1   ├ set 2 ┤" in printed
    assert "time in ms  0.000" in printed
    assert "2.000 to     3.000 ms  process 2  get -> 1" in printed
    assert "\x1b" not in printed


def test_a_reason_why_properties_were_not_tested_is_printed_once() -> None:
    absent = PropertyVerdict.NOT_APPLICABLE
    findings = (
        PropertyFinding("one holder of a lock", absent, "", "the backend has no lock()"),
        PropertyFinding("clear removes what was there", absent, "", "only with --private"),
        PropertyFinding("fencing tokens only grow", absent, "", "the backend has no lock()"),
    )
    out = io.StringIO()
    print_report([AliasReport("default", "some.Cache", findings, 1.0)], out)
    assert out.getvalue().splitlines()[-2:] == [
        "default: one holder of a lock, fencing tokens only grow: not applicable: the backend has no lock()",
        "default: clear removes what was there: not applicable: only with --private",
    ]


def test_what_json_holds_can_be_expected(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(as_json(REPORTS, {"date": "today"}))
    stored = json.loads(path.read_text())
    assert stored["aliases"][0]["findings"][0]["counterexample"][1]["result"] == 1
    assert read_expected(path) == verdicts(REPORTS)
    assert differences(REPORTS, read_expected(path)) == []
    either = {**verdicts(REPORTS), "bad": {"one order": ["HOLDS", "BROKEN"], "locks": "HOLDS"}}
    path.write_text(json.dumps(either))
    assert differences(REPORTS, read_expected(path)) == []


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"bad": {"one order": "HOLDS", "locks": "HOLDS"}}, "one order is BROKEN, expected HOLDS"),
        ({"bad": {"one order": "BROKEN"}}, "bad: locks is HOLDS, expected nothing"),
        (
            {"bad": {"one order": ["HOLDS", "UNKNOWN"]}},
            "bad: one order is BROKEN, expected HOLDS or UNKNOWN",
        ),
        (
            {"bad": {"one order": "BROKEN", "locks": "HOLDS", "more": "HOLDS"}},
            "bad: more is missing, expected HOLDS",
        ),
        ({}, "bad is not in the expected verdicts"),
    ],
)
def test_every_difference_from_what_is_expected_is_named(
    expected: dict[str, dict[str, str | list[str]]], said: str
) -> None:
    assert any(said in one for one in differences(REPORTS[:1], expected))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "expected {"),
        ("nonsense", "Expecting value"),
        ('{"bad": {"one order": "FINE"}}', "'FINE'; expected one of"),
        ('{"bad": {"one order": ["HOLDS", "FINE"]}}', "'FINE'; expected one of"),
    ],
)
def test_what_cannot_be_expected_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "expected.json"
    path.write_text(text)
    with pytest.raises(CommandError, match=complaint) as caught:
        call_command("cachecheck", "default", "--expect", str(path))
    assert caught.value.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "no alias nowhere; CACHES has default, lmdb, disk, locmem, redis"),
        (["--processes", "1"], "number of at least 2"),
        (["--seconds", "0"], "number of seconds above 0"),
        (["--expect", "/nowhere"], "--expect /nowhere"),
        (["--only", "magic"], "invalid choice"),
        (["--gunicorn", "--private"], "--gunicorn"),
    ],
)
def test_what_cannot_run_is_an_error(arguments: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        call_command("cachecheck", *arguments)


def test_junit_has_a_case_for_each_property_and_the_proof_of_what_is_broken() -> None:
    unknown = PropertyFinding("locks", PropertyVerdict.UNKNOWN, "", "down")
    lacking = PropertyFinding("add", PropertyVerdict.NOT_APPLICABLE, "", "has no add")
    report = AliasReport("bad", "some.Cache", (STALE, unknown, lacking), 1.5)
    suite = ET.fromstring(write_junit([report]).partition("\n")[2])[0]  # noqa: S314 (our own)
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "1", "skipped": "1"}
    failure = suite[0][0]
    assert failure.get("message") == "1 of 9 reads stale; because"
    assert "get -> 1" in (failure.text or "")


def test_junit_fails_for_what_differs_from_the_expected_verdicts_and_for_nothing_else() -> None:
    unknown = PropertyFinding("locks", PropertyVerdict.UNKNOWN, "", "down")
    lacking = PropertyFinding("add", PropertyVerdict.NOT_APPLICABLE, "", "has no add")
    better = PropertyFinding("counters", PropertyVerdict.HOLDS, "9 of 9", "")
    report = AliasReport("bad", "some.Cache", (STALE, unknown, lacking, better), 1.5)
    wanted: Verdicts = {
        "one order": ["HOLDS", "BROKEN"],
        "locks": "HOLDS",
        "add": "NOT APPLICABLE",
        "counters": "BROKEN",
        "touch": "HOLDS",
    }
    suite = ET.fromstring(write_junit([report], {"bad": wanted}).partition("\n")[2])[0]  # noqa: S314 (our own)
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "3", "errors": "0", "skipped": "1"}
    said = {str(case.get("name")): case[0] for case in suite}
    assert said["one order"].text == "BROKEN, as expected; 1 of 9 reads stale; because"
    failed = {name: one.get("message") for name, one in said.items() if one.tag == "failure"}
    assert failed == {
        "locks": "locks is UNKNOWN, expected HOLDS; down",
        "counters": "counters is HOLDS, expected BROKEN; 9 of 9",
        "touch": "touch is missing, expected HOLDS",
    }


def test_annotations_are_one_line_each() -> None:
    out = io.StringIO()
    write_annotations(REPORTS, out)
    (line,) = out.getvalue().splitlines()
    assert line.startswith(
        "::error title=cachecheck bad%3A one order::1 of 9 reads stale; because%0A"
    )
    expected = io.StringIO()
    bad: Verdicts = {"one order": ["HOLDS", "BROKEN"], "locks": "HOLDS"}
    write_annotations(REPORTS, expected, {"bad": bad, "good": {"one order": "HOLDS"}})
    assert expected.getvalue().splitlines() == [line.replace("::error ", "::notice ")]
    better = AliasReport("bad", "some.Cache", (PropertyFinding("add", PropertyVerdict.HOLDS),), 1.5)
    differing = io.StringIO()
    write_annotations([better], differing, {"bad": {"add": "BROKEN"}})
    assert differing.getvalue() == (
        "::error title=cachecheck bad%3A add::add is HOLDS, expected BROKEN\n"
    )
