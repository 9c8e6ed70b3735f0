"""What holds for every channel: history, limits of tenants, quiet hours, preferences."""

from __future__ import annotations

import importlib
import re
from datetime import time
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from notifications_worker.limits import TenantLimit
from notifications_worker.preferences import QuietHours
from worker_runtime.settings import Allowed, WorkerSettings
from worker_runtime.settings.queues import ADDRESSEES

if TYPE_CHECKING:
    from notifications_worker.preferences import Hook

LIMIT = re.compile(r"([A-Z_]+)=([1-9]\d{0,5})/([smh])")
WINDOW_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
HOURS = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")


def _hours(text: str) -> tuple[time, time]:
    found = HOURS.fullmatch(text)
    if not found:
        raise ValueError("not two times of day")
    hour, minute, end_hour, end_minute = (int(part) for part in found.groups())
    begin, end = time(hour, minute), time(end_hour, end_minute)
    if begin == end:
        raise ValueError("begins when it ends")
    return begin, end


def _two_times(text: str) -> str:
    if text:
        _hours(text)
    return text


def _limits(text: str) -> dict[str, TenantLimit]:
    limits = {}
    for one in filter(None, map(str.strip, text.split(","))):
        found = LIMIT.fullmatch(one)
        if not found or found[1] not in ADDRESSEES:
            raise ValueError(f"{one} is no limit of a channel")
        limits[found[1]] = TenantLimit(int(found[2]), WINDOW_MS[found[3]])
    return limits


def _readable_limits(text: str) -> str:
    _limits(text)
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not a time zone that is known here") from None
    return name


def _hook(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"{function} is not a function")  # noqa: TRY004  pydantic collects this kind
    return found


def _importable(name: str) -> str:
    if name:
        _hook(name)
    return name


def _channels(text: str) -> str:
    if strangers := {one.strip() for one in text.split(",") if one.strip()} - set(ADDRESSEES):
        raise ValueError(f"names {', '.join(sorted(strangers))}")
    return text


Channels = Annotated[str, AfterValidator(_channels), Allowed("channels such as EMAIL, comma-separated")]

TenantLimits = Annotated[str, AfterValidator(_readable_limits), Allowed("such as EMAIL=10/s,SMS=60/m")]


class DeliverySettings(WorkerSettings):
    """Limits, quiet hours and history of deliveries."""

    delivery_history_days: Annotated[int, Field(ge=7, le=3650)] = Field(
        90, description="how long PostgreSQL keeps deliveries; a second job with a known notificationId sends nothing"
    )
    tenant_rate_limits: Annotated[str, AfterValidator(_readable_limits), Allowed("such as EMAIL=10/s,SMS=60/m")] = (
        Field(
            "",
            description="most notifications of one tenant in a second, minute or hour, over all replicas; by channel",
        )
    )
    urgent_reserve: Annotated[int, Field(ge=0, le=100)] = Field(
        2,
        description="URGENT notifications in flight per queue beyond QUEUE_CONCURRENCY, when others hold all slots",
    )
    quiet_hours: Annotated[str, AfterValidator(_two_times), Allowed("HH:MM-HH:MM, or nothing")] = Field(
        "", description="when only URGENT notifications are sent, in the recipient's time zone (`metadata.timezone`)"
    )
    quiet_hours_timezone: Annotated[str, AfterValidator(_zone), Allowed("a name such as Europe/Vienna")] = Field(
        "UTC", description="time zone of recipients whose own is not told"
    )
    quiet_hours_channels: Channels = Field("SMS", description="what quiet hours hold for")
    preferences_hook: Annotated[str, AfterValidator(_importable), Allowed("package.module:function")] = Field(
        "", description="async function that says of each notification whether it is wanted, and when"
    )

    def tenant_limit(self, channel: str) -> TenantLimit | None:
        """Return the limit of a channel's tenants."""
        return _limits(self.tenant_rate_limits).get(channel)

    def quiet_hours_of(self, channel: str) -> QuietHours | None:
        """Return a channel's quiet hours."""
        held_for = {one.strip() for one in self.quiet_hours_channels.split(",")}
        if not self.quiet_hours or channel not in held_for:
            return None
        return QuietHours(*_hours(self.quiet_hours), ZoneInfo(self.quiet_hours_timezone))

    def hook(self) -> Hook | None:
        """Return the preferences hook."""
        return _hook(self.preferences_hook) if self.preferences_hook else None
