"""What a callback says of a delivery, and who is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import structlog

if TYPE_CHECKING:
    from notifications_worker.callbacks.about import About
    from notifications_worker.store import HistoryStore

__all__ = ["DeliveryState", "DeliveryUpdates", "LoggedUpdates", "RecordedUpdates", "StatusReport"]

log = structlog.get_logger()

PAUSES_SECONDS = (0.2, 0.5, 1.0)


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


class LoggedUpdates:
    """See `DeliveryUpdates`: where no database keeps a history, the log does."""

    async def update(self, report: StatusReport) -> None:
        """See `DeliveryUpdates`."""
        log.info(
            "delivery_status",
            provider=report.provider,
            providerMessageId=report.provider_message_id,
            status=report.state.label,
            code=report.code,
            notificationId=report.about.notification_id if report.about else None,
        )


class RecordedUpdates:
    """See `DeliveryUpdates`: in the record of deliveries, which knows final states only."""

    def __init__(self, history: HistoryStore) -> None:
        self._history = history
        self._log = LoggedUpdates()

    async def update(self, report: StatusReport) -> None:
        """See `DeliveryUpdates`. A report may be quicker than our own note that the message was accepted."""
        await self._log.update(report)
        if report.state.rank < DeliveryState.DELIVERED.rank:
            return
        final = "delivered" if report.state is DeliveryState.DELIVERED else "undelivered"
        for pause in (*PAUSES_SECONDS, None):
            known = await self._history.said_later(report.provider, report.provider_message_id, final, report.code)
            if known is not None or pause is None:
                return
            await asyncio.sleep(pause)
