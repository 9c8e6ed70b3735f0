"""Schedules as pg_cron writes them: five fields of cron's in UTC, or `10 seconds`.

Unlike a `Pattern` of Node's, `$` is the last day of a month, a step needs a range before it, and a day has to fit both
fields for days as soon as one of them begins with `*`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from worker_runtime.cron.pattern import DAYS_A_WEEK, MONTHS, WEEKDAYS, Days, Pattern, values

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Crontab"]

WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
INTERVAL = re.compile(r"[ \t]*([1-9]|[1-5][0-9])[ \t]+seconds?[ \t]*", re.IGNORECASE)
# What a step follows is `*` or a range.
ITEM = re.compile(r"(\*|\d+-\d+)(/(?P<step>\d+))?|\d+", re.ASCII)
NAME = re.compile(r"\b[a-z]+\b", re.ASCII)
LAST_DAY = "$"


@dataclass(frozen=True, slots=True)
class Crontab:
    """A schedule taken apart.

    One that is `fixed` names minutes and hours: it should not come again because a clock was put back a little.
    """

    when: Pattern | timedelta
    fixed: bool = False

    @classmethod
    @functools.lru_cache(maxsize=256)
    def read(cls, text: str) -> Crontab:
        """Read a schedule; raises ValueError with what is wrong."""
        if interval := INTERVAL.fullmatch(text):
            return cls(timedelta(seconds=int(interval[1])))
        trimmed = text.strip(" \t").lower()
        fields = re.split(r"[ \t]+", WORDS.get(trimmed, trimmed))
        try:
            minute, hour, day, month, weekday = fields
            times = (0,), _values(minute, 0, 59), _values(hour, 0, 23)
            pattern = Pattern(*times, _days(day, weekday), _values(month, 1, 12, MONTHS))
        except ValueError as error:
            raise ValueError(f"schedule {text!r}: {error}") from None
        return cls(pattern, fixed=not (minute.startswith("*") or hour.startswith("*")))

    def due(self, since: datetime, until: datetime) -> datetime | None:
        """Return when it was due last, after `since` and not after `until`; `None` when it was not. All are in UTC."""
        if isinstance(self.when, timedelta):
            times = (until - since) // self.when
            return since + times * self.when if times > 0 else None
        found = self.when.latest(until.replace(tzinfo=None), since.replace(tzinfo=None))
        return found and found.replace(tzinfo=UTC)

    def next(self, since: datetime) -> datetime | None:
        """Return when it is due first after `since`; `None` when that is more than eight years ahead."""
        if isinstance(self.when, timedelta):
            return since + self.when
        try:
            return self.when.after(since.replace(tzinfo=None)).replace(tzinfo=UTC)
        except ValueError:
            return None


def _days(day: str, weekday: str) -> Days:
    of_month = () if day == LAST_DAY else _values(day, 1, 31)
    of_week = {number % DAYS_A_WEEK for number in _values(weekday, 0, 7, WEEKDAYS)}
    both = day.startswith("*") or weekday.startswith("*")
    return Days(of_month, tuple(sorted(of_week)), last=day == LAST_DAY, lasts=(), week=0, both=both)


def _values(field: str, lowest: int, highest: int, names: tuple[str, ...] = ()) -> tuple[int, ...]:
    numbers = {name: str(number) for number, name in enumerate(names, lowest)}
    return values(",".join(_numbered(item, highest, numbers) for item in field.split(",")), lowest, highest)


def _numbered(item: str, highest: int, numbers: Mapping[str, str]) -> str:
    ends, slash, step = item.partition("/")
    numbered = NAME.sub(lambda name: numbers.get(name[0], name[0]), ends) + slash + step
    if not (found := ITEM.fullmatch(numbered)) or int(found["step"] or 1) > highest:
        raise ValueError(f"{item!r} is no number, name, range, or range with a step")
    return numbered
