"""When a cron schedule is due next, by a wall clock that is sometimes put forward and back.

Where the clock is put forward, what it skips comes as much later as it skips. Where it is put back, what is due every
hour comes in both the hour and its repetition, anything else in the first only.
"""

from __future__ import annotations

import bisect
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from worker_runtime.cron.pattern import Pattern

NOTHING, SECOND, DAY = timedelta(0), timedelta(seconds=1), timedelta(days=1)


def next_due(pattern: str, after_ms: int, zone_name: str | None = None) -> int:
    """Return the first moment after `after_ms` that fits, in ms since the epoch; without a time zone in UTC.

    Raises ValueError for a pattern that cannot be read or fits no day, `ZoneInfoNotFoundError` for an unknown zone.
    """
    zone = ZoneInfo(zone_name) if zone_name else UTC
    after = datetime.fromtimestamp(after_ms // 1000, zone)
    return min(candidates(Pattern.read(pattern), after, zone)) * 1000


def candidates(pattern: Pattern, after: datetime, zone: tzinfo) -> list[int]:
    """List what may be the next moment, in seconds since the epoch."""
    wall = after.replace(tzinfo=None, fold=0)
    found = [moment(pattern.after(wall), after, zone)]
    if pattern.every_hour and after.fold == 0 and is_shown_twice(wall, zone):
        again = pattern.after(wall_when_put_back(after, zone) - SECOND)
        if is_shown_twice(again, zone):
            found.append(round(again.replace(tzinfo=zone, fold=1).timestamp()))
    # Just after the clock was put forward, something it skipped may still be to come.
    skipped = max(NOTHING, offset(after) - offset(after - DAY))
    if is_skipped(wall - skipped, zone) and is_skipped(late := pattern.after(wall - skipped), zone):
        found.append(moment(late, after, zone))
    return found


def moment(wall: datetime, after: datetime, zone: tzinfo) -> int:
    """Return when the clock shows this time, the second time if the first is over, in seconds since the epoch."""
    first = wall.replace(tzinfo=zone)
    return round((first if first.timestamp() > after.timestamp() else first.replace(fold=1)).timestamp())


def is_skipped(wall: datetime, zone: tzinfo) -> bool:
    """Whether the clock is put forward over this time."""
    return put_forward(wall, zone) > NOTHING


def is_shown_twice(wall: datetime, zone: tzinfo) -> bool:
    """Whether the clock is put back over this time."""
    return put_forward(wall, zone) < NOTHING


def put_forward(wall: datetime, zone: tzinfo) -> timedelta:
    """Return by how much the clock is changed over this time; below zero when it is put back."""
    before, after = (wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    return offset(after) - offset(before)


def wall_when_put_back(after: datetime, zone: tzinfo) -> datetime:
    """Return what the clock shows when it has just been put back, at a time that it will show again."""
    start = round(after.timestamp())
    length = round(-put_forward(after.replace(tzinfo=None), zone).total_seconds())
    ahead = range(start, start + length + 1)
    change = bisect.bisect_left(ahead, 1, key=lambda then: offset(datetime.fromtimestamp(then, zone)) != offset(after))
    return datetime.fromtimestamp(ahead[change], zone).replace(tzinfo=None, fold=0)


def offset(there: datetime) -> timedelta:
    """Return the distance from UTC."""
    return there.utcoffset() or NOTHING
