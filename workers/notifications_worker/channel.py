"""What every channel promises, and how one says that a provider did not take a message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from notifications_worker.notification import ChannelName

if TYPE_CHECKING:
    from notifications_worker.notification import Notification
    from worker_runtime.outcome import DeadLetter, Defer, Retry

__all__ = ["Accepted", "Channel", "ChannelName", "Circuit", "NotAccepted", "Verdict"]

M = TypeVar("M")


class Circuit(Enum):
    """What a refused call says about the provider's health."""

    WORKS = "works"  # It answered; this message or its recipient is the problem.
    FAILED = "failed"  # It is out, or about to be: counts towards opening the circuit.
    MISCONFIGURED = "misconfigured"  # It will refuse every message until somebody acts: opens the circuit at once.
    UNTOLD = "untold"  # Nobody can tell: neither a success nor a failure.


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with the job, and with the circuit."""

    outcome: Retry | Defer | DeadLetter
    circuit: Circuit


@dataclass(frozen=True, slots=True)
class Accepted:
    """A provider took responsibility for the message. `provider_message_id` is its name for it, if it told one."""

    provider_message_id: str | None


class NotAccepted(Exception):
    """No provider is known to have taken the message; `verdict` says what follows.

    The text is for the log: a provider's own words with addresses masked.
    """

    def __init__(self, verdict: Verdict, text: str = "") -> None:
        super().__init__(text)
        self.verdict = verdict
        self.text = text


class Channel(Protocol, Generic[M]):
    """One way to reach a person. `M` is the message as this channel sends it.

    A new channel is one file with such a class and one line in `channels/__init__.py`.
    """

    name: ClassVar[ChannelName]
    provider: str  # As metrics, health and the circuit name it.

    def recipient(self, notification: Notification) -> str:
        """Return the address it goes to. Pure. Raises PermanentError when the notification has none."""
        ...

    def shown(self, recipient: str) -> str:
        """Return an address as a log line may hold it: the person is masked. Pure."""
        ...

    def compose(self, notification: Notification, created_at: float) -> M:
        """Build the message; the same arguments build the same bytes. Pure. Raises PermanentError.

        `created_at` is the job's time in seconds since the epoch.
        """
        ...

    async def send(self, message: M) -> Accepted:
        """Hand the message to a provider, once. May take minutes. Raises NotAccepted.

        Cancelling it leaves the provider's answer unknown, and the channel usable.
        """
        ...


AnyChannel = Channel[Any]
