import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from cacheapp.cachecheck.report import as_json, differences, print_report, read_expected, verdicts
from cacheapp.cachecheck.verdicts import AliasReport, PropertyFinding, PropertyVerdict, plain
from tests.unit.consistency.histories import op

LANES = (op("p1", "set", 0, 1_000_000, 2), op("p2", "get", 2_000_000, 3_000_000, result=1))
STALE = PropertyFinding("one order", PropertyVerdict.BROKEN, "1 of 9 reads stale", "because", LANES)
REPORTS = [
    AliasReport("bad", "some.Cache", (STALE, plain("locks", [], "0 of 9")), 1.0),
    AliasReport("good", "some.Cache", (plain("one order", [], "0 of 9 reads stale"),), 1.0),
]


def test_the_table_names_each_property_once_and_the_proof_stands_below() -> None:
    out = io.StringIO()
    print_report(REPORTS, out)
    printed = out.getvalue()
    assert printed.count("│ one order") == 1
    assert "│ BROKEN             │ HOLDS" in printed
    assert "bad: one order: BROKEN: because" in printed
    assert "p1  ├ set 2 ┤" in printed
    assert "2.000 to     3.000 ms  p2  get -> 1" in printed
    assert "\x1b" not in printed


def test_what_json_holds_can_be_expected(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(as_json(REPORTS, {"date": "today"}))
    stored = json.loads(path.read_text())
    assert stored["aliases"][0]["findings"][0]["counterexample"][1]["result"] == 1
    assert read_expected(path) == verdicts(REPORTS)
    assert differences(REPORTS, read_expected(path)) == []


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"bad": {"one order": "HOLDS", "locks": "HOLDS"}}, "one order is BROKEN, expected HOLDS"),
        ({"bad": {"one order": "BROKEN"}}, "bad: locks is HOLDS, expected nothing"),
        (
            {"bad": {"one order": "BROKEN", "locks": "HOLDS", "more": "HOLDS"}},
            "bad: more is missing, expected HOLDS",
        ),
        ({}, "bad is not in the expected verdicts"),
    ],
)
def test_every_difference_from_what_is_expected_is_named(
    expected: dict[str, dict[str, str]], said: str
) -> None:
    assert any(said in one for one in differences(REPORTS[:1], expected))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "expected {"),
        ("nonsense", "Expecting value"),
        ('{"bad": {"one order": "FINE"}}', "'FINE'; expected one of"),
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
