"""What the notifications-worker reads beside what every worker does: what each channel needs is beside the channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifications_worker.channels import CHANNELS
from notifications_worker.delivery_settings import DeliverySettings
from worker_runtime.settings import HealthPort  # noqa: TC001  pydantic reads annotations

__all__ = ["NotificationsSettings"]

if TYPE_CHECKING:
    # What it really consists of depends on the channels there are.
    from notifications_worker.channels.email_settings import EmailSettings
    from notifications_worker.channels.sms_settings import SmsSettings
    from notifications_worker.channels.webhook_settings import WebhookSettings

    class OfChannels(EmailSettings, SmsSettings, WebhookSettings): ...
else:
    OfChannels = type("OfChannels", tuple(kind.settings for kind in CHANNELS.values()), {"__doc__": "Channels."})


class NotificationsSettings(OfChannels, DeliverySettings):
    """Notifications."""

    health_port: HealthPort = 3102

    def enabled(self, queue: str) -> bool:
        """Tell whether the channel behind the queue with that key (`EMAIL`) is on."""
        return bool(getattr(self, f"enable_{queue.lower()}"))

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        found = super().warnings()
        if self.database_url is None:
            found.insert(0, "no DATABASE_URL: deliveries are remembered in Redis for 7 days, and there is no history")
        if not any(map(self.enabled, CHANNELS)):
            found.append("ENABLE_EMAIL=false: no channel is on, so this worker delivers nothing")
        return found
