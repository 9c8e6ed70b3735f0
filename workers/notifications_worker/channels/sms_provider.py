"""What the SMS channel asks of whoever sends for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from notifications_worker.channel import Accepted
    from notifications_worker.channels.sms_message import SmsMessage

__all__ = ["SmsProvider"]


class SmsProvider(Protocol):
    """An account at a company that sends SMS. Cancelling a call leaves its end unknown, and the provider usable."""

    @property
    def name(self) -> str:
        """Its name in settings, metrics and the logs, and its circuit's."""
        ...

    async def send(self, message: SmsMessage) -> Accepted:
        """Ask it to send, once; takes half a minute at most. Raises NotAccepted."""
        ...

    async def look_up(self, message: SmsMessage, since: float) -> Accepted | None:
        """Ask for a message that may have been accepted since then (seconds since the epoch).

        None: it is not there. Raises NotAccepted, which is not known to be unsent, when the provider cannot tell now.
        """
        ...
