from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from notifications_worker.limits import TenantLimit
from notifications_worker.notification import Notification
from notifications_worker.preferences import SEND, Preferences, QuietHours, Wait
from notifications_worker.settings import NotificationsSettings
from worker_runtime.settings import SettingsError, load

VIENNA = QuietHours(time(22), time(8), ZoneInfo("Europe/Vienna"))


def notification(**changes: Any) -> Notification:
    payload = {"notificationId": "n", "tenantId": "t", "channel": "SMS", "recipient": {}, "content": {"body": "b"}}
    return Notification.model_validate(payload | changes)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-01-10T20:59:59Z", None),
        ("2026-01-10T21:00:00Z", "2026-01-11T07:00:00Z"),
        ("2026-01-11T03:00:00Z", "2026-01-11T07:00:00Z"),
        ("2026-01-11T06:59:59Z", "2026-01-11T07:00:00Z"),
        ("2026-01-11T07:00:00Z", None),
        # The night in which clocks go forward is an hour shorter.
        ("2026-03-28T21:30:00Z", "2026-03-29T06:00:00Z"),
    ],
)
def test_a_night(now: str, until: str | None) -> None:
    expected = None if until is None else datetime.fromisoformat(until)
    assert VIENNA.until(notification(), datetime.fromisoformat(now)) == expected


def test_a_lunch_break() -> None:
    noon = QuietHours(time(12), time(13, 30), ZoneInfo("UTC"))
    assert noon.until(notification(), datetime(2026, 1, 1, 12, 5, tzinfo=UTC)) == datetime(
        2026, 1, 1, 13, 30, tzinfo=UTC
    )
    assert noon.until(notification(), datetime(2026, 1, 1, 13, 30, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("zone", "quiet"),
    [("America/New_York", False), ("Asia/Tokyo", True), ("nowhere", True), (7, True), ("../etc", True)],
)
def test_the_recipients_own_zone_counts(zone: Any, quiet: bool) -> None:  # noqa: FBT001
    night_in_vienna = datetime(2026, 1, 10, 22, 0, tzinfo=UTC)
    asked = notification(metadata={"timezone": zone})
    assert (VIENNA.until(asked, night_in_vienna) is not None) is quiet


class Midnight:
    def now(self) -> float:
        return datetime(2026, 1, 10, 23, 0, tzinfo=UTC).timestamp()

    def monotonic(self) -> float:
        return 0.0


async def test_what_is_urgent_is_sent_at_any_hour() -> None:
    preferences = Preferences(Midnight(), VIENNA)
    assert await preferences(notification(priority="URGENT")) is SEND
    assert isinstance(await preferences(notification(priority="HIGH")), Wait)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUIET_HOURS", "22-8"),
        ("QUIET_HOURS", "22:00-22:00"),
        ("QUIET_HOURS", "25:00-08:00"),
        ("QUIET_HOURS_TIMEZONE", "Mars/Olympus"),
        ("QUIET_HOURS_CHANNELS", "SMS,PIGEON"),
        ("PREFERENCES_HOOK", "no.such.module:hook"),
        ("PREFERENCES_HOOK", "os:sep"),
        ("DELIVERY_HISTORY_DAYS", "1"),
        ("TENANT_RATE_LIMITS", "EMAIL"),
        ("TENANT_RATE_LIMITS", "PIGEON=1/s"),
        ("TENANT_RATE_LIMITS", "EMAIL=0/s"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}"):
        load(NotificationsSettings)


def test_quiet_hours_hold_for_the_channels_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIET_HOURS", "22:00-08:00")
    monkeypatch.setenv("QUIET_HOURS_TIMEZONE", "Europe/Vienna")
    settings = load(NotificationsSettings)
    assert settings.quiet_hours_of("SMS") == VIENNA
    assert settings.quiet_hours_of("EMAIL") is None


def test_limits_of_tenants_are_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANT_RATE_LIMITS", "EMAIL=10/s, SMS=60/m")
    settings = load(NotificationsSettings)
    assert settings.tenant_limit("EMAIL") == TenantLimit(10, 1_000)
    assert settings.tenant_limit("SMS") == TenantLimit(60, 60_000)
    assert settings.tenant_limit("WEBHOOK") is None
