"""What a callback may change: what became of a delivery, and who wants no more messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from notifications_worker.callbacks.about import About
    from notifications_worker.channel import ChannelName

__all__ = ["OPTED_OUT", "DeliveryState", "DeliveryUpdates", "StatusReport", "Suppressions"]

OPTED_OUT = "OPTED_OUT"


class DeliveryState(Enum):
    """What became of an accepted message: its name, and how far along that is."""

    QUEUED = ("queued", 0)
    SENDING = ("sending", 1)
    SENT = ("sent", 2)
    DELIVERED = ("delivered", 3)
    UNDELIVERED = ("undelivered", 3)
    FAILED = ("failed", 3)

    def __init__(self, label: str, rank: int) -> None:
        self.label = label
        self.rank = rank

    def supersedes(self, known: DeliveryState | None) -> bool:
        """Tell whether this is news. Reports come twice and in any order; what is final stays."""
        return known is None or self.rank > known.rank


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A provider says what became of a message. `code` is its own error code, `about` names our notification."""

    provider: str
    provider_message_id: str
    state: DeliveryState
    code: str | None = None
    about: About | None = None


class DeliveryUpdates(Protocol):
    """Where deliveries are recorded."""

    async def update(self, report: StatusReport) -> None:
        """Keep the state if it `supersedes` the one that is kept; one of a message nobody knows is dropped.

        Called again with the same report, and for one message by several callbacks at once. May raise when the record
        cannot be reached: the provider is then asked to call again.
        """
        ...


class Suppressions(Protocol):
    """Who gets no messages. Both methods may be called twice, and raise as `DeliveryUpdates.update` may."""

    async def add(self, tenant_id: str | None, channel: ChannelName, address: str, reason: str) -> None:
        """Send nothing there any more; without a tenant, for none: they share the sender that was refused."""
        ...

    async def remove(self, tenant_id: str | None, channel: ChannelName, address: str, reason: str) -> None:
        """Lift what was added for this reason, by this tenant's callback or, without one, by anybody's."""
        ...
