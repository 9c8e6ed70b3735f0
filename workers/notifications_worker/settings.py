"""What the notifications-worker reads beside what every worker does: what each channel needs is beside the channel."""

from __future__ import annotations

from notifications_worker.channels.email_settings import EmailSettings
from notifications_worker.channels.webhook_settings import WebhookSettings
from notifications_worker.delivery_settings import DeliverySettings
from worker_runtime.settings import HealthPort, WorkerSettings

__all__ = ["NotificationsSettings"]


class NotificationsSettings(EmailSettings, WebhookSettings, DeliverySettings, WorkerSettings):
    """Notifications."""

    health_port: HealthPort = 3102

    def enabled(self, queue: str) -> bool:
        """Tell whether the channel behind the queue with that key (`EMAIL`) is on."""
        return bool(getattr(self, f"enable_{queue.lower()}"))

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        found = super().warnings()
        if self.database_url is None:
            found.append("no DATABASE_URL: deliveries are remembered in Redis for 7 days, and there is no history")
        if not (self.enable_email or self.enable_webhook):
            found.append("ENABLE_EMAIL=false: no channel is on, so this worker delivers nothing")
        return [*found, *self.email_warnings(), *self.webhook_warnings()]
