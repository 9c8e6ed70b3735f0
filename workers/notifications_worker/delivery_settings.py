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
from worker_runtime.settings import Allowed, Milliseconds, WorkerSettings
from worker_runtime.settings.queues import ADDRESSEES

if TYPE_CHECKING:
    from notifications_worker.preferences import Hook

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


Channels = Annotated[str, AfterValidator(_channels), Allowed("EMAIL, SMS and WEBHOOK, comma-separated")]
MOST = "most notifications of one tenant per duration, over all replicas; 0 = no limit"


class DeliverySettings(WorkerSettings):
    """Limits, quiet hours and history of deliveries."""

    delivery_history_days: Annotated[int, Field(ge=7, le=3650)] = Field(
        90, description="how long PostgreSQL keeps deliveries; a second job with a known notificationId sends nothing"
    )
    tenant_rate_limit_email_max: int = Field(0, ge=0, le=100_000, description=f"e-mail: {MOST}")
    tenant_rate_limit_sms_max: int = Field(0, ge=0, le=100_000, description=f"SMS: {MOST}")
    tenant_rate_limit_webhook_max: int = Field(0, ge=0, le=100_000, description=f"webhooks: {MOST}")
    tenant_rate_limit_duration_ms: Milliseconds = Field(1_000, description="the duration of the tenants' limits")
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
        most = getattr(self, f"tenant_rate_limit_{channel.lower()}_max", 0)
        return TenantLimit(most, self.tenant_rate_limit_duration_ms) if most else None

    def quiet_hours_of(self, channel: str) -> QuietHours | None:
        """Return a channel's quiet hours."""
        held_for = {one.strip() for one in self.quiet_hours_channels.split(",")}
        if not self.quiet_hours or channel not in held_for:
            return None
        return QuietHours(*_hours(self.quiet_hours), ZoneInfo(self.quiet_hours_timezone))

    def hook(self) -> Hook | None:
        """Return the preferences hook."""
        return _hook(self.preferences_hook) if self.preferences_hook else None
