"""Whether a person wants a notification, and when: quiet hours, and a hook for whoever knows more.

The hook is `PREFERENCES_HOOK=package.module:function`, an async function of a notification that returns `SEND`, `Drop`
or `Wait`. What is urgent is sent at any hour; the hook is asked about it all the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from notifications_worker.notification import Notification, Priority

if TYPE_CHECKING:
    from worker_runtime.clock import Clock

__all__ = ["SEND", "Drop", "Preference", "Preferences", "QuietHours", "Wait"]


@dataclass(frozen=True, slots=True)
class Send:
    """Send it now."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Never send it: the job completes without success. `why` is a few words without personal data."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Not before `until`, which has a time zone."""

    until: datetime


SEND = Send()
Preference = Send | Drop | Wait
Hook = Callable[[Notification], Awaitable[Preference]]


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `begin` to `end` of the recipient's day, which may lie across midnight, nothing is sent.

    The recipient's time zone is `metadata.timezone`, or else `zone`.
    """

    begin: time
    end: time
    zone: ZoneInfo

    def until(self, notification: Notification, now: datetime) -> datetime | None:
        """Return when the quiet hours end that it is in, or nothing outside of them."""
        local = now.astimezone(self._zone_of(notification))
        if not self._quiet(local.timetz().replace(tzinfo=None)):
            return None
        ends = local.replace(hour=self.end.hour, minute=self.end.minute, second=0, microsecond=0)
        return (ends if ends > local else ends + timedelta(days=1)).astimezone(UTC)

    def _quiet(self, moment: time) -> bool:
        if self.begin <= self.end:
            return self.begin <= moment < self.end
        return moment >= self.begin or moment < self.end

    def _zone_of(self, notification: Notification) -> ZoneInfo:
        named = (notification.metadata or {}).get("timezone")
        try:
            return ZoneInfo(named) if isinstance(named, str) else self.zone
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return self.zone


class Preferences:
    """What one channel's recipients want."""

    def __init__(self, clock: Clock, quiet_hours: QuietHours | None = None, hook: Hook | None = None) -> None:
        self._clock = clock
        self._quiet_hours = quiet_hours
        self._hook = hook

    async def __call__(self, notification: Notification) -> Preference:
        """Ask the hook, then the clock. Raises whatever the hook raises."""
        asked = await self._hook(notification) if self._hook else SEND
        if asked is not SEND or self._quiet_hours is None or notification.priority is Priority.URGENT:
            return asked
        until = self._quiet_hours.until(notification, datetime.fromtimestamp(self._clock.now(), UTC))
        return SEND if until is None else Wait(until)
