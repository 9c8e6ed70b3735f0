"""What the notifications-worker reads for webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, SecretStr

from notifications_worker.channels.webhook_signature import read_key
from worker_runtime.settings import Allowed, Milliseconds, WorkerSettings

if TYPE_CHECKING:
    from notifications_worker.channels.webhook_signature import Key

DAY_MS = 86_400_000


def _signing_secret(value: SecretStr) -> SecretStr:
    read_key(value.get_secret_value())
    return value


class WebhookSettings(WorkerSettings):
    """Webhooks."""

    enable_webhook: bool = Field(default=False, description="deliver webhooks; otherwise their queue is left alone")
    webhook_signing_secret: (
        Annotated[
            SecretStr, AfterValidator(_signing_secret), Allowed("whsec_ or whsk_ and base64 of 24 to 64 random bytes")
        ]
        | None
    ) = Field(None, description="signs webhooks to endpoints that have no secret of their own")
    webhook_timeout_ms: Annotated[Milliseconds, Field(le=60_000)] = Field(
        15_000, description="time limit of a webhook, from the look-up of its name to the end of the answer"
    )
    webhook_disable_after_ms: Milliseconds = Field(
        5 * DAY_MS, description="an endpoint of which nothing but failures came for so long is disabled"
    )

    def webhook_keys(self) -> tuple[Key, ...]:
        """Return what signs for endpoints without a secret of their own."""
        secret = self.webhook_signing_secret
        return (read_key(secret.get_secret_value()),) if secret else ()

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        found = super().warnings()
        if self.enable_webhook and not self.webhook_signing_secret:
            return [
                *found,
                "no WEBHOOK_SIGNING_SECRET: webhooks to endpoints without a secret of their own go unsigned",
            ]
        if self.webhook_signing_secret and not self.enable_webhook:
            return [*found, "WEBHOOK_SIGNING_SECRET has no effect without ENABLE_WEBHOOK=true"]
        return found
