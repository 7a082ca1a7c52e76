import io

import pytest

from cacheapp.consistency.sharing import SharingVerdict
from cacheapp.demo.deployment import unwelcome
from cacheapp.demo.probe import Count, Race, SharingFinding, Sight, judge
from cacheapp.demo.report import print_table

PIDS = (11, 12, 13, 14)
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
DUMMY = "django.core.cache.backends.dummy.DummyCache"
REDIS = "cacheapp.backends.RedisCache"
DISK = "cacheapp.backends.DiskCache"


def sight(*seen: str | None) -> Sight:
    return Sight(PIDS[0], "token", dict(zip(PIDS, seen or ["token"] * 4, strict=True)))


def count(
    *counted: int | None,
    sums: list[int] | None = None,
    unknown: int = 0,
    failed: list[str] | None = None,
) -> Count:
    return Count(
        asked=200,
        sums=list(range(1, 201)) if sums is None else sums,
        unknown=unknown,
        failed=failed or [],
        counted=dict(zip(PIDS, counted or [200] * 4, strict=True)),
        by_worker=dict.fromkeys(PIDS, 50),
    )


def race(*winners: int, unanswered: int = 0) -> Race:
    return Race(16, list(winners or [1] * 5), unanswered)


def test_what_every_worker_agrees_on_is_shared() -> None:
    found = judge(sight(), count(), race())
    verdict, why = found.verdict, found.why
    assert verdict is SharingVerdict.SHARED
    assert why == [
        "all 4 workers read what worker 11 wrote",
        "after 200 concurrent increments all of them read 200",
        "of 16 concurrent adds 1 won, in each of 5 rounds",
    ]


@pytest.mark.parametrize(
    ("seen", "counted", "raced", "proof"),
    [
        (sight("token", None, None, None), count(), race(), "not seen by workers 12, 13 and 14"),
        (sight("token", "token", "old", "token"), count(), race(), "not seen by worker 13"),
        (sight(None, None, None, None), count(), race(), "not seen by workers 11, 12, 13 and 14"),
        (sight(), count(50, 50, 50, 50), race(), "read 50, 50, 50 and 50; expected 200 from each"),
        (sight(), count(200, 200, 200, 199), race(), "read 200, 200, 200 and 199; expected 200"),
        (sight(), count(199, 199, 199, 199), race(), "expected 200 from each"),
        (sight(), count(201, 201, 201, 201), race(), "expected 200 from each"),
        (sight(), count(None, None, None, None), race(), "read nothing, nothing"),
        (sight(), count(200, None, None, None), race(), "read 200, nothing"),
        (sight(), count(sums=[*range(1, 200), 7]), race(), "1 increments returned the same sum"),
        (sight(), count(), race(1, 1, 2, 1, 1), "1, 1, 2, 1, 1 won; expected 1"),
        (sight(), count(), race(1, 1, 0, 1, 1), "1, 1, 0, 1, 1 won; expected 1"),
        (sight(), count(), race(4, 4, 4, 4, 4, unanswered=1), "4, 4, 4, 4, 4 won"),
        (
            sight(),
            count(202, 202, 202, 202, unknown=1, sums=[*range(1, 200)]),
            race(),
            "199 to 200",
        ),
    ],
)
def test_one_disagreement_breaks_it(seen: Sight, counted: Count, raced: Race, proof: str) -> None:
    found = judge(seen, counted, raced)
    verdict, why = found.verdict, found.why
    assert verdict is SharingVerdict.BROKEN
    assert any(proof in sentence for sentence in why), why


@pytest.mark.parametrize(
    ("counted", "raced", "said"),
    [
        (count(unknown=1, sums=[*range(1, 200)]), race(), "1 increments have an unknown outcome"),
        (count(*[199] * 4, unknown=1, sums=[*range(1, 200)]), race(), "an unknown outcome"),
        (count(*[199] * 4, failed=["no room"], sums=[*range(1, 200)]), race(), "failed: no room"),
        (count(), race(1, 1, 0, 1, 1, unanswered=2), "2 adds were not answered"),
    ],
)
def test_with_anything_unanswered_nothing_is_called_shared(
    counted: Count, raced: Race, said: str
) -> None:
    found = judge(sight(), counted, raced)
    verdict, why = found.verdict, found.why
    assert verdict is SharingVerdict.DOWN
    assert any(said in sentence for sentence in why), why


@pytest.mark.parametrize(
    ("backend", "verdict", "redis_to_be_had", "excused"),
    [
        (DISK, SharingVerdict.SHARED, True, True),
        (DISK, SharingVerdict.BROKEN, True, False),
        (DISK, SharingVerdict.DOWN, False, False),
        (REDIS, SharingVerdict.BROKEN, False, False),
        (REDIS, SharingVerdict.DOWN, True, False),
        (REDIS, SharingVerdict.DOWN, False, True),
        (LOCMEM, SharingVerdict.BROKEN, True, True),
        (DUMMY, SharingVerdict.BROKEN, True, True),
        ("django.core.cache.backends.filebased.FileBasedCache", SharingVerdict.BROKEN, True, False),
        ("somebody.elses.Cache", SharingVerdict.DOWN, False, False),
    ],
)
def test_what_ought_to_be_shared_and_is_not_is_unwelcome(
    *,
    backend: str,
    verdict: SharingVerdict,
    redis_to_be_had: bool,
    excused: bool,
) -> None:
    finding = SharingFinding("some", backend, verdict, ["because"])
    expected = [] if excused else [f"some is {verdict}, expected SHARED"]
    assert unwelcome([finding], redis_to_be_had=redis_to_be_had) == expected


def test_the_table_fits_80_columns_and_has_no_colours_in_a_pipe() -> None:
    seen, counted, raced = sight("token", None, None, None), count(52, 48, 50, 50), race(4)
    found = judge(seen, counted, raced)
    verdict, why = found.verdict, found.why
    out = io.StringIO()
    findings = [
        SharingFinding("locmem", LOCMEM, verdict, why, seen, counted, raced),
        SharingFinding(
            "redis", REDIS, SharingVerdict.DOWN, ["the store of alias 'redis' is down (refused)"]
        ),
    ]
    print_table(findings, PIDS, "http://127.0.0.1:8000", out)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in out.getvalue()
    assert [line.strip("│ ").split("│") for line in lines if "1 of 4" in line] == [
        ["locmem ", " BROKEN  ", "     1 of 4 ", "       52 48 50 50 ", "       4 of 16"]
    ]
    assert "redis DOWN: the store of alias 'redis' is down (refused)." in lines
