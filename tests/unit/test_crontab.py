"""Schedules as pg_cron means them, against the rule asked minute by minute."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from worker_runtime.cron import Crontab

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NEXT = [
    ("* * * * *", "2026-03-01T10:00:00", "2026-03-01T10:01:00"),
    ("*/15 * * * *", "2026-03-01T10:00:01", "2026-03-01T10:15:00"),
    ("0 3 * * *", "2026-03-01T03:00:00", "2026-03-02T03:00:00"),
    ("0 12 $ * *", "2026-02-01T00:00:00", "2026-02-28T12:00:00"),
    ("0 12 $ * *", "2028-02-01T00:00:00", "2028-02-29T12:00:00"),
    ("0 0 * * 1-5", "2026-03-06T00:00:00", "2026-03-09T00:00:00"),
    ("0 0 * * mon,WED", "2026-03-06T00:00:00", "2026-03-09T00:00:00"),
    ("0 0 1 Jan,jul *", "2026-03-06T00:00:00", "2026-07-01T00:00:00"),
    ("30 8-18/5 * * *", "2026-03-06T09:00:00", "2026-03-06T13:30:00"),
    # Either of the days will do...
    ("0 0 13 * 5", "2026-03-07T00:00:00", "2026-03-13T00:00:00"),
    ("0 0 20 * 5", "2026-03-14T00:00:00", "2026-03-20T00:00:00"),
    ("0 0 $ * 5", "2026-03-28T00:00:00", "2026-03-31T00:00:00"),
    # ...unless one of the fields begins with a star: then it must be both.
    ("0 0 */2 * 1", "2026-03-03T00:00:00", "2026-03-09T00:00:00"),
    ("0 0 $ * */2", "2026-03-01T00:00:00", "2026-03-31T00:00:00"),
    ("0 0 * * 7", "2026-03-02T00:00:00", "2026-03-08T00:00:00"),
    ("0 0 * * 5-7", "2026-03-07T00:00:00", "2026-03-08T00:00:00"),
    ("  5\t4 * * *  ", "2026-03-02T00:00:00", "2026-03-02T04:05:00"),
    ("@hourly", "2026-03-02T00:00:00", "2026-03-02T01:00:00"),
    ("@midnight", "2026-03-02T00:00:00", "2026-03-03T00:00:00"),
    ("@yearly", "2026-03-02T00:00:00", "2027-01-01T00:00:00"),
    ("1 second", "2026-03-02T00:00:00", "2026-03-02T00:00:01"),
    (" 30  sEcOnDs ", "2026-03-02T00:00:00", "2026-03-02T00:00:30"),
]


@pytest.mark.parametrize(("schedule", "since", "due"), NEXT)
def test_when_it_is_due_next(schedule: str, since: str, due: str) -> None:
    crontab = Crontab.read(schedule)
    assert crontab.next(at(since)) == at(due)
    assert crontab.due(at(since), at(due)) == at(due)
    assert crontab.due(at(since), at(due) - timedelta(microseconds=1)) is None


@pytest.mark.parametrize(
    ("schedule", "fixed"),
    [("0 3 * * *", True), ("5,35 3 * * *", True), ("* 3 * * *", False), ("0 */2 * * *", False), ("5 seconds", False)],
)
def test_what_names_minutes_and_hours_is_fixed(schedule: str, *, fixed: bool) -> None:
    assert Crontab.read(schedule).fixed is fixed


def test_of_many_missed_times_the_last_is_due() -> None:
    minutely, seconds = Crontab.read("* * * * *"), Crontab.read("7 seconds")
    since = at("2026-03-01T10:00:30")
    assert minutely.due(since, since + timedelta(days=40, seconds=45)) == at("2026-04-10T10:01:00")
    assert seconds.due(since, since + timedelta(seconds=20)) == since + timedelta(seconds=14)
    assert Crontab.read("0 0 1 1 *").due(at("2020-06-01T00:00:00"), at("2026-06-01T00:00:00")) == at(
        "2026-01-01T00:00:00"
    )


def test_a_day_that_never_comes_is_never_due() -> None:
    assert Crontab.read("0 0 30 2 *").next(at("2026-01-01T00:00:00")) is None
    assert Crontab.read("0 0 30 2 *").due(at("2016-01-01T00:00:00"), at("2026-01-01T00:00:00")) is None


REFUSED = [
    *("", "*", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *"),
    *("* * * 0 *", "* * * * 8", "5-1 * * * *", "*/0 * * * *", "*/60 * * * *", "5/10 * * * *", "1,,2 * * * *"),
    *("* * $foo * *", "* * 1,$ * *", "* * * jan5 *", "* * * janfeb *", "* * * * monday", "*/jan * * * *", "a b c d e"),
    *("-1 * * * *", "1- * * * *", "** * * * *", "* * ? * *", "* * L * *", "* * * * 1#2", "@reboot", "@noon"),
    *("0 seconds", "60 seconds", "-1 seconds", "5 secondc", "50 seconds c", "1.5 seconds", "٣ * * * *", "* * * * *\n"),
]


@pytest.mark.parametrize("schedule", REFUSED)
def test_what_it_cannot_read_it_refuses(schedule: str) -> None:
    with pytest.raises(ValueError, match=r"^schedule "):
        Crontab.read(schedule)


@st.composite
def fields(draw: st.DrawFn, lowest: int, highest: int) -> tuple[str, frozenset[int]]:
    """A field, and the numbers that it means."""
    items = draw(st.lists(st.sampled_from("nnrs*"), min_size=1, max_size=3))
    texts, meant = [], set[int]()
    for item in items:
        first, last = sorted((draw(st.integers(lowest, highest)), draw(st.integers(lowest, highest))))
        step = draw(st.integers(1, highest)) if item in "s*" else 1
        if item == "n":
            last = first
        if item == "*":
            first, last = lowest, highest
        meant |= set(range(first, last + 1, step))
        span = {"n": f"{first}", "*": "*"}.get(item, f"{first}-{last}")
        texts.append(span + (f"/{step}" if item in "s*" else ""))
    return ",".join(texts), frozenset(meant)


Meaning = tuple[str, list[frozenset[int]]]


@st.composite
def schedules(draw: st.DrawFn) -> Meaning:
    parts = [draw(fields(*ends)) for ends in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))]
    texts, meant = [text for text, _ in parts], [numbers for _, numbers in parts]
    if draw(st.booleans()):
        texts[2], meant[2] = "$", frozenset()
    return " ".join(texts), meant


def fits(meaning: Meaning, minute: datetime) -> bool:
    """The rule as cron's manual has it, for one minute."""
    text, (minutes, hours, days, months, weekdays) = meaning
    last = text.split()[2] == "$" and minute.day == monthrange(minute.year, minute.month)[1]
    by_date, by_weekday = minute.day in days or last, bool({minute.isoweekday() % 7, minute.isoweekday()} & weekdays)
    star = text.split()[2].startswith("*") or text.split()[4].startswith("*")
    day = (by_date and by_weekday) if star else (by_date or by_weekday)
    return day and minute.month in months and minute.hour in hours and minute.minute in minutes


def minutes_after(start: datetime, most: int) -> Iterator[datetime]:
    first = start.replace(second=0, microsecond=0) + MINUTE
    return (first + number * MINUTE for number in range(most))


MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001


@given(schedules(), MOMENTS)
def test_it_is_due_when_the_rule_says_so(meaning: Meaning, start: datetime) -> None:
    crontab = Crontab.read(meaning[0])
    window = list(minutes_after(start, 3000))
    due = [minute for minute in window if fits(meaning, minute)]
    following = crontab.next(start)
    assert (following if following and following <= window[-1] else None) == (due[0] if due else None)
    assert crontab.due(start, window[-1] + timedelta(seconds=59)) == (due[-1] if due else None)


@given(schedules(), MOMENTS)
def test_far_ahead_it_is_due_at_a_minute_that_fits(meaning: Meaning, start: datetime) -> None:
    following = Crontab.read(meaning[0]).next(start)
    assume(following)
    assert following
    assert fits(meaning, following)
    assert Crontab.read(meaning[0]).due(start, following) == following
