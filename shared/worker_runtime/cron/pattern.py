"""Cron patterns as Node's cron-parser reads them, but for its `H`.

Five fields, or six with the seconds first, or a word with an `@`. A field is a list of numbers, names, ranges and
steps, `*` or `?`; a day may be `L` (the month's last), a weekday `5L` (the last Friday) or `1#2` (the second Monday).
Where both kinds of day are given, either will do.
"""

from __future__ import annotations

import functools
import itertools
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

WORDS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
    "@minutely": "0 * * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 0 * * 1-5",
    "@weekends": "0 0 0 * * 0,6",
}
# What fields that are left out mean, from the left.
USUAL = ("0", "*", "*", "*", "*", "*")
ANY = ("*", "?")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
DAYS_A_WEEK, HOURS_A_DAY, MOST_WEEKS = 7, 24, 5
# From one 29th of February to the next where a century has none.
LONGEST_PAUSE_DAYS = 8 * 366
LAST_WEEKDAYS = {f"{number}l" for number in range(DAYS_A_WEEK + 1)}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern taken apart; the values of a field are in order."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: Days
    months: tuple[int, ...]

    @classmethod
    @functools.lru_cache(maxsize=256)
    def read(cls, text: str) -> Pattern:
        """Read a pattern; raises ValueError with what is wrong."""
        fields = WORDS.get(text, text).lower().split()
        try:
            second, minute, hour, day, month, weekday = (*USUAL[: len(USUAL) - len(fields)], *fields)
            times = values(second, 0, 59), values(minute, 0, 59), values(hour, 0, 23)
            return cls(*times, Days.read(day, weekday), values(with_numbers(month, MONTHS, 1), 1, 12))
        except ValueError as error:
            raise ValueError(f"cron pattern {text!r}: {error}") from None

    @property
    def every_hour(self) -> bool:
        """Whether it fits at some minute of each hour of its days."""
        return len(self.hours) == HOURS_A_DAY

    def after(self, wall: datetime) -> datetime:
        """Return the first time that fits, by a clock that is never changed; raises ValueError when there is none."""
        today = wall.date()
        if self._fits(today) and (later := self._time_after(wall.hour, wall.minute, wall.second)):
            return datetime.combine(today, later)
        for distance in range(1, LONGEST_PAUSE_DAYS):
            if self._fits(day := today + timedelta(distance)):
                return datetime.combine(day, time(self.hours[0], self.minutes[0], self.seconds[0]))
        raise ValueError("a cron pattern of days that do not exist")

    def latest(self, wall: datetime, after: datetime) -> datetime | None:
        """Return the last time that fits, not later than `wall` but later than `after`; `None` when there is none."""
        for distance in range((wall.date() - after.date()).days + 1):
            day = wall.date() - timedelta(distance)
            if self._fits(day) and (earlier := self._time_until(time.max if distance else wall.time())):
                found = datetime.combine(day, earlier)
                return found if found > after else None
        return None

    def _time_until(self, end: time) -> time | None:
        fields = (reversed(self.hours), reversed(self.minutes), reversed(self.seconds))
        return next((found for found in itertools.starmap(time, itertools.product(*fields)) if found <= end), None)

    def _fits(self, day: date) -> bool:
        return day.month in self.months and self.days.include(day)

    def _time_after(self, hour: int, minute: int, second: int) -> time | None:
        if hour in self.hours:
            if minute in self.minutes and (later := following(self.seconds, second)) is not None:
                return time(hour, minute, later)
            if (later := following(self.minutes, minute)) is not None:
                return time(hour, later, self.seconds[0])
        later = following(self.hours, hour)
        return None if later is None else time(later, self.minutes[0], self.seconds[0])


@dataclass(frozen=True, slots=True)
class Days:
    """The two fields for days; `None` is one that says nothing.

    `last` is the month's last day, `lasts` are the weekdays of its last week, `week` is which one of a weekday. A
    day has to be of `both` fields, or of either.
    """

    of_month: tuple[int, ...] | None
    of_week: tuple[int, ...] | None
    last: bool
    lasts: tuple[int, ...]
    week: int
    both: bool = False

    @classmethod
    def read(cls, day: str, weekday: str) -> Days:
        """Read the day of the month and that of the week."""
        weekday, _, week = with_numbers(weekday, WEEKDAYS, 0).partition("#")
        if week and (set(weekday) & set(",-/") or not 1 <= int(week) <= MOST_WEEKS):
            raise ValueError(f"{weekday}#{week}: not one weekday and its number from 1 to {MOST_WEEKS}")
        plain_days, last = without_last(day, {"l"})
        plain_weekdays, lasts = without_last(weekday, LAST_WEEKDAYS)
        return cls(
            None if day in ANY else values(plain_days, 1, 31),
            None if weekday in ANY else tuple(number % DAYS_A_WEEK for number in values(plain_weekdays, 0, 7)),
            bool(last),
            tuple(int(one[0]) % DAYS_A_WEEK for one in lasts),
            int(week or 0),
        )

    def include(self, day: date) -> bool:
        """Whether either field names the day, or neither says anything."""
        if self.of_month is None and self.of_week is None:
            return True
        fits = all if self.both else any
        return fits((self._by_date(day), self._by_weekday(day)))

    def _by_date(self, day: date) -> bool:
        return day.day in (self.of_month or ()) or (self.last and days_left(day) == 0)

    def _by_weekday(self, day: date) -> bool:
        weekday = day.isoweekday() % DAYS_A_WEEK
        if weekday in self.lasts and days_left(day) < DAYS_A_WEEK:
            return True
        return weekday in (self.of_week or ()) and self.week in (0, (day.day - 1) // DAYS_A_WEEK + 1)


def days_left(day: date) -> int:
    """Return how many days of its month follow."""
    return monthrange(day.year, day.month)[1] - day.day


def following(numbers: tuple[int, ...], number: int) -> int | None:
    """Return the next of these numbers."""
    return next((one for one in numbers if one > number), None)


def with_numbers(field: str, names: tuple[str, ...], first: int) -> str:
    """Write numbers for names."""
    for number, name in enumerate(names, start=first):
        field = field.replace(name, str(number))
    return field


def without_last(field: str, lasts: set[str]) -> tuple[str, list[str]]:
    """Take out of a list what names a last day."""
    items = field.split(",")
    return ",".join(item for item in items if item not in lasts), [item for item in items if item in lasts]


def values(field: str, lowest: int, highest: int) -> tuple[int, ...]:
    """Read a list of numbers, ranges and steps; there is none in an empty field."""
    spans = [span(item, lowest, highest) for item in field.split(",")] if field else []
    return tuple(sorted(set(itertools.chain.from_iterable(spans))))


def span(item: str, lowest: int, highest: int) -> range:
    """Read one number, range or step."""
    ends, _, step = item.partition("/")
    first, _, last = (f"{lowest}-{highest}" if ends in ANY else ends).partition("-")
    numbers = range(int(first), int(last or (highest if step else first)) + 1)
    if not numbers or numbers[0] < lowest or numbers[-1] > highest or int(step or 1) < 1:
        raise ValueError(f"{item}: not between {lowest} and {highest}")
    return numbers[:: int(step or 1)]
