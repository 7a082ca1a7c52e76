import pytest

from cacheapp.downloads.http.ranges import (
    ContentRange,
    RangeDecision,
    ResumePoint,
    decide,
    is_complete,
    matching_validator,
    range_headers,
    read_content_range,
    strong_validator,
)

TAG = '"v1"'
OLD = "Sat, 21 Nov 2026 10:00:00 GMT"
NOW = "Sun, 22 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 0-0/1", ContentRange(0, 0, 1)),
        ("bytes 0-9/10", ContentRange(0, 9, 10)),
        ("bytes 9-9/10", ContentRange(9, 9, 10)),
        ("Bytes  5-9/*", ContentRange(5, 9, None)),
        ("bytes 0-10/10", None),  # the last byte of 10 is number 9
        ("bytes 5-4/10", None),
        ("bytes */10", None),
        ("bytes 0-9", None),
        ("bytes=0-9/10", None),
        ("items 0-9/10", None),
        ("bytes -1-9/10", None),
        ("bytes 0-9/10, 20-29/30", None),
        ("bytes 0-9999999999999999999/*", None),  # more digits than any file has bytes
        ("", None),
        (None, None),
    ],
)
def test_a_content_range_is_parsed_or_invalid(
    text: str | None, expected: ContentRange | None
) -> None:
    assert read_content_range(text) == expected


@pytest.mark.parametrize(
    ("size", "total", "expected"),
    [
        pytest.param(0, 0, True, id="empty-file"),
        pytest.param(0, 1, False, id="nothing-of-one-byte"),
        pytest.param(1, 1, True, id="one-byte"),
        pytest.param(9, 10, False, id="all-but-the-last-byte"),
        pytest.param(10, 10, True, id="all"),
        pytest.param(10, None, False, id="length-unknown"),
    ],
)
def test_a_complete_file_needs_no_request(size: int, total: int | None, *, expected: bool) -> None:
    assert is_complete(ResumePoint(size, TAG, total)) is expected


def test_the_rest_is_requested_with_if_range() -> None:
    assert range_headers(ResumePoint(9, TAG, 10)) == {"Range": "bytes=9-", "If-Range": TAG}


@pytest.mark.parametrize(
    ("status", "content_range", "validator", "verdict"),
    [
        pytest.param(206, "bytes 4-9/10", TAG, RangeDecision.CONTINUE, id="the-rest"),
        pytest.param(206, "bytes 4-4/10", TAG, RangeDecision.CONTINUE, id="less-than-the-rest"),
        pytest.param(206, "bytes 4-9/*", TAG, RangeDecision.CONTINUE, id="length-known-to-us"),
        pytest.param(200, None, TAG, RangeDecision.RESTART, id="ranges-ignored"),
        pytest.param(200, None, '"v2"', RangeDecision.RESTART, id="changed"),
        pytest.param(
            206, "bytes 4-9/10", '"v2"', RangeDecision.REQUEST_WHOLE, id="if-range-ignored"
        ),
        pytest.param(206, "bytes 4-9/10", None, RangeDecision.REQUEST_WHOLE, id="no-proof"),
        pytest.param(206, "bytes 4-9/10", 'W/"v1"', RangeDecision.REQUEST_WHOLE, id="weak-proof"),
        pytest.param(
            206, "bytes 0-9/10", TAG, RangeDecision.REQUEST_WHOLE, id="from-the-beginning"
        ),
        pytest.param(206, "bytes 3-9/10", TAG, RangeDecision.REQUEST_WHOLE, id="a-byte-early"),
        pytest.param(206, "bytes 5-9/10", TAG, RangeDecision.REQUEST_WHOLE, id="a-byte-late"),
        pytest.param(206, "bytes 4-9/11", TAG, RangeDecision.REQUEST_WHOLE, id="another-length"),
        pytest.param(206, None, TAG, RangeDecision.REQUEST_WHOLE, id="no-content-range"),
        pytest.param(206, "bytes */10", TAG, RangeDecision.REQUEST_WHOLE, id="unsatisfied"),
        pytest.param(416, "bytes */3", TAG, RangeDecision.REQUEST_WHOLE, id="beyond-the-end"),
        pytest.param(404, None, None, RangeDecision.NOT_A_FILE, id="gone"),
        pytest.param(503, None, None, RangeDecision.NOT_A_FILE, id="busy"),
        pytest.param(304, None, TAG, RangeDecision.NOT_A_FILE, id="not-modified"),
    ],
)
def test_the_decision_follows_the_response(
    status: int, content_range: str | None, validator: str | None, verdict: RangeDecision
) -> None:
    assert decide(status, ResumePoint(4, TAG, 10), content_range, validator) is verdict


def test_a_response_without_a_total_is_not_continued() -> None:
    assert decide(206, ResumePoint(4, TAG, None), "bytes 4-9/*", TAG) is RangeDecision.REQUEST_WHOLE
    assert decide(206, ResumePoint(4, TAG, None), "bytes 4-9/10", TAG) is RangeDecision.CONTINUE


@pytest.mark.parametrize(
    ("etag", "modified", "date", "expected"),
    [
        pytest.param(TAG, None, None, TAG, id="tag"),
        pytest.param(' "v 1" ', None, None, None, id="space-in-tag"),
        pytest.param('""', None, None, '""', id="empty-tag"),
        pytest.param("v1", None, None, None, id="no-quotes"),
        pytest.param('W/"v1"', None, None, None, id="weak"),
        pytest.param('W/"v1"', OLD, NOW, OLD, id="weak-tag-strong-date"),
        pytest.param(None, OLD, NOW, OLD, id="date-a-day-old"),
        pytest.param(None, NOW, NOW, None, id="date-of-this-second"),
        pytest.param(None, "Sun, 22 Nov 2026 09:59:01 GMT", NOW, None, id="59-seconds-old"),
        pytest.param(
            *(None, "Sun, 22 Nov 2026 09:59:00 GMT", NOW, "Sun, 22 Nov 2026 09:59:00 GMT"),
            id="60-seconds-old",
        ),
        pytest.param(None, OLD, None, None, id="sent-at-an-unknown-time"),
        pytest.param(None, NOW, OLD, None, id="from-the-future"),
        pytest.param(None, "yesterday", NOW, None, id="no-date"),
        pytest.param(
            *(None, "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", NOW, None), id="huge-year"
        ),
        pytest.param(
            *(None, OLD, "Mon, 01 Jan 2026 00:00:00 +99999999999999999999", None), id="huge-zone"
        ),
        pytest.param(None, None, None, None, id="nothing"),
    ],
)
def test_only_strong_validators_count(
    etag: str | None, modified: str | None, date: str | None, expected: str | None
) -> None:
    assert strong_validator(etag, modified, date) == expected


def test_a_tag_is_proved_by_a_tag_and_a_date_by_a_date() -> None:
    assert matching_validator(ResumePoint(1, TAG, 2), TAG, OLD) == TAG
    assert matching_validator(ResumePoint(1, OLD, 2), TAG, OLD) == OLD
    assert matching_validator(ResumePoint(1, OLD, 2), TAG, None) is None
