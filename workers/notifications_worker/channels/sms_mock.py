"""SMS for a desk without a provider: nothing leaves, a log line says what would have.

The start warns of it, and results say that nothing was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from notifications_worker.channel import Accepted
from notifications_worker.channels.sms_number import shown

if TYPE_CHECKING:
    from notifications_worker.channels.sms_message import SmsMessage

__all__ = ["MockSms"]

log = structlog.get_logger()


class MockSms:
    """See `SmsProvider`."""

    name = "mock"

    async def send(self, message: SmsMessage) -> Accepted:
        """See `SmsProvider`."""
        log.warning(
            "sms_not_sent",
            provider=self.name,
            recipient=shown(message.to),
            parts=message.parts,
            why="SMS_PROVIDER=mock",
        )
        return Accepted(None, pretended=True)

    async def look_up(self, message: SmsMessage, since: float) -> Accepted | None:
        """See `SmsProvider`."""
        del message, since
        return None
