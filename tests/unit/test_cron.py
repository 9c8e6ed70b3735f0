"""Cron by a wall clock that is put forward and back; that patterns mean what they mean to Node, tests/interop shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_runtime.bullmq.schedules import next_options
from worker_runtime.cron import next_due

BERLIN = "Europe/Berlin"
# Half an hour, and in the other half of the year.
LORD_HOWE = "Australia/Lord_Howe"


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def due(pattern: str, after: str, zone: str | None = None) -> str:
    moment = next_due(pattern, ms(after), zone) / 1000
    return datetime.fromtimestamp(moment, ZoneInfo(zone) if zone else UTC).isoformat()


# In 2026 Berlin's clock goes from 02:00 to 03:00 on 29 March, and from 03:00 back to 02:00 on 25 October.
CHANGES = [
    # The stock Python port is an hour off for whatever lies beyond a change.
    ("0 9 * * 1-5", "2026-03-28T12:00+01:00", BERLIN, "2026-03-30T09:00:00+02:00"),
    ("0 9 * * 1-5", "2026-10-24T12:00+02:00", BERLIN, "2026-10-26T09:00:00+01:00"),
    ("0 0 1 * *", "2026-03-01T00:00+01:00", BERLIN, "2026-04-01T00:00:00+02:00"),
    # Skipped times come as much later.
    ("30 2 * * *", "2026-03-28T12:00+01:00", BERLIN, "2026-03-29T03:30:00+02:00"),
    ("30 2 * * *", "2026-03-29T03:30+02:00", BERLIN, "2026-03-30T02:30:00+02:00"),
    ("*/20 2 * * *", "2026-03-29T03:00+02:00", BERLIN, "2026-03-29T03:20:00+02:00"),
    ("*/20 2 * * *", "2026-03-29T03:40+02:00", BERLIN, "2026-03-30T02:00:00+02:00"),
    ("* * * * *", "2026-03-29T01:59+01:00", BERLIN, "2026-03-29T03:00:00+02:00"),
    ("0 2 * * *", "2026-10-03T12:00+10:30", LORD_HOWE, "2026-10-04T02:30:00+11:00"),
    # A repeated hour counts twice for what is due each hour, else once.
    ("30 2 * * *", "2026-10-25T01:00+02:00", BERLIN, "2026-10-25T02:30:00+02:00"),
    ("30 2 * * *", "2026-10-25T02:30+02:00", BERLIN, "2026-10-26T02:30:00+01:00"),
    ("30 * * * *", "2026-10-25T02:30+02:00", BERLIN, "2026-10-25T02:30:00+01:00"),
    ("30 * * * *", "2026-10-25T02:30+01:00", BERLIN, "2026-10-25T03:30:00+01:00"),
    ("0 * * * *", "2026-04-05T01:30+11:00", LORD_HOWE, "2026-04-05T02:00:00+10:30"),
]


@pytest.mark.parametrize(("pattern", "after", "zone", "expected"), CHANGES)
def test_the_clock_is_put_forward_and_back(pattern: str, after: str, zone: str, expected: str) -> None:
    assert due(pattern, after, zone) == expected


def test_without_a_zone_it_is_utc() -> None:
    assert due("0 9 * * *", "2026-03-29T00:00+00:00") == "2026-03-29T09:00:00+00:00"


DAY_MS = 86_400_000
OF_2026 = ["2026-03-29T01:00Z", "2026-04-04T15:00Z", "2026-10-03T15:30Z", "2026-10-25T01:00Z", "2026-11-01T06:00Z"]
AROUND_CHANGES = st.builds(int.__add__, st.sampled_from([*map(ms, OF_2026)]), st.integers(-DAY_MS, DAY_MS))
ZONES = st.sampled_from([BERLIN, LORD_HOWE, "America/New_York", "Africa/Casablanca", "Asia/Kathmandu"])


@given(AROUND_CHANGES, ZONES)
def test_every_minute_comes_whatever_the_clock_does(after: int, zone: str) -> None:
    assert next_due("* * * * *", after, zone) == after // 60_000 * 60_000 + 60_000


@given(AROUND_CHANGES, ZONES, st.integers(0, 23), st.integers(0, 59))
def test_once_a_day_is_once_a_day(start: int, zone: str, hour: int, minute: int) -> None:
    noon = datetime.fromtimestamp(start / 1000, ZoneInfo(zone)).replace(hour=12, minute=0)
    moments = [round(noon.timestamp() * 1000)]
    while len(moments) < 5:
        moments.append(next_due(f"{minute} {hour} * * *", moments[-1], zone))
    days = [datetime.fromtimestamp(moment / 1000, ZoneInfo(zone)).date() for moment in moments[1:]]
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))


REFUSED = [
    "a b c d e",
    "60 * * * *",
    "* * * * * * *",
    "5-1 * * * *",
    "*/0 * * * *",
    "0 0 30 2 *",
    "0 0 * * 1#6",
    "H * * * *",
]


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="cron pattern"):
        next_due(pattern, 0)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ZoneInfoNotFoundError):
        next_due("* * * * *", 0, "Europe/Atlantis")


def test_a_schedule_ends_before_its_end_date() -> None:
    """Node makes no job that would be due after it."""
    now, end = ms("2026-01-01T08:00+00:00"), ms("2026-01-01T09:30+00:00")
    hourly = {"repeat": {"pattern": "0 * * * *", "endDate": end}}
    following = next_options(hourly, "tick", now)
    assert following is not None
    assert following[0] == ms("2026-01-01T09:00+00:00")
    assert next_options(following[1], "tick", following[0]) is None
