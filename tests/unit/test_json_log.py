"""`LOG_FORMAT=json`: each record is one line of JSON."""

import json
import logging
import sys
from typing import Any

from cacheapp.json_log import JsonFormatter


def _line(**fields: Any) -> dict[str, Any]:
    record = logging.makeLogRecord(
        {"name": "cacheapp.it", "levelname": "WARNING", "levelno": 30, "created": 0.5, **fields}
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_record_has_its_sentence_its_event_and_its_other_fields() -> None:
    found = _line(msg="%d of %s", args=(2, "3\n"), event="cache_full", job="é", process=7)
    assert found == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "WARNING",
        "logger": "cacheapp.it",
        "pid": 7,
        "message": "2 of 3\n",
        "event": "cache_full",
        "job": "é",
    }


def test_no_field_hides_those_of_the_record_or_breaks_the_line() -> None:
    found = _line(msg="it", level="extra", request=object())
    assert found["level"] == "WARNING"
    assert found["request"].startswith("<object")


def test_an_exception_is_part_of_the_line() -> None:
    try:
        raise ValueError("the\nreason")  # noqa: TRY301 (the subject)
    except ValueError:
        found = _line(msg="failed", exc_info=sys.exc_info())
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("ValueError: the\nreason")
