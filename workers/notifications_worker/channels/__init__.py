"""The channels this worker delivers through. A new one is one file here and one line in `CHANNELS`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from notifications_worker.channel import AnyChannel
from notifications_worker.channels.email import email_channel
from notifications_worker.channels.sms import sms_channel

if TYPE_CHECKING:
    # A channel's own settings are beside it, so the settings are built from this package.
    from notifications_worker.settings import NotificationsSettings

__all__ = ["CHANNELS", "OpenChannel"]

OpenChannel = Callable[["NotificationsSettings"], AbstractAsyncContextManager[AnyChannel]]

# By the key of the queue it serves, as in QUEUE_<QUEUE>_PREFIX; `ENABLE_<QUEUE>` switches it.
CHANNELS: dict[str, OpenChannel] = {
    "EMAIL": email_channel,
    "SMS": sms_channel,
}
