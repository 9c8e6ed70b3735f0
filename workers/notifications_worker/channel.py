"""What every channel promises, and how one says that a provider did not take a message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from notifications_worker.notification import Notification
    from worker_runtime.job import Job
    from worker_runtime.outcome import DeadLetter, Defer, Retry
    from worker_runtime.settings import WorkerSettings

__all__ = [
    "Accepted",
    "AnyChannel",
    "Channel",
    "ChannelKind",
    "Circuit",
    "NotAccepted",
    "Reply",
    "Route",
    "Verdict",
]

M = TypeVar("M")


class Circuit(Enum):
    """What a refused call says about the provider's health."""

    WORKS = "works"  # It answered; this message or its recipient is the problem.
    FAILED = "failed"  # It is out, or about to be: counts towards opening the circuit.
    MISCONFIGURED = "misconfigured"  # It will refuse every message until somebody acts: opens the circuit at once.
    UNTOLD = "untold"  # Nobody can tell: neither a success nor a failure.


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with the job, with the circuit and with the recipient.

    `unsent`: the provider surely has not got the message, so another may be asked to send it. `suppress`: why nothing
    should be sent to this recipient any more, for example `HARD_BOUNCE` or `OPTED_OUT`.
    """

    outcome: Retry | Defer | DeadLetter
    circuit: Circuit
    unsent: bool = True
    suppress: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a provider answered, for the record of attempts: personal data masked.

    `status` is its own number (SMTP, HTTP), `code` its finer one (5.1.1, 21610), `text` at most 16 KiB, `remote` the
    address that answered, `signed_by` names the keys that signed what it got.
    """

    status: int | None = None
    code: str | None = None
    text: str = ""
    remote: str | None = None
    signed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A provider took responsibility for the message. `provider_message_id` is its name for it, if it told one.

    `pretended`: it is a stand-in that sends nothing, and the result does not say otherwise.
    """

    provider_message_id: str | None
    reply: Reply | None = None
    pretended: bool = False


class NotAccepted(Exception):
    """No provider is known to have taken the message; `verdict` says what follows.

    The text is for the log: a provider's own words with addresses masked.
    """

    def __init__(self, verdict: Verdict, text: str = "", reply: Reply | None = None) -> None:
        super().__init__(text)
        self.verdict = verdict
        self.text = text
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Route(Generic[M]):
    """One provider that a message may leave through, and the circuit that guards it.

    An open `circuit` stops the whole queue, when all of its messages leave that way (`shared`), or puts off this
    message alone (an endpoint of one tenant). `per_second` limits what leaves this way, over all replicas. `look_up`
    asks the provider for a message that may have left at a second since the epoch, and returns nothing for one unknown.
    """

    provider: str  # As metrics name it.
    circuit: str  # As health and the logs name it: `smtp`, `twilio`, `webhook:<endpoint>`.
    send: Callable[[M], Awaitable[Accepted]]
    shared: bool = True
    per_second: float | None = None
    repeatable: bool = False  # Whether the receiver knows a message that comes twice by its id.
    look_up: Callable[[M, float], Awaitable[Accepted | None]] | None = None


S = TypeVar("S", bound="WorkerSettings")


@dataclass(frozen=True)
class ChannelKind(Generic[S]):
    """What the module of a channel has under the name `KIND`: the variables it adds, and how to open it.

    The settings' `warnings()` calls that of its `super()`.
    """

    settings: type[S]
    open: Callable[[S], AbstractAsyncContextManager[AnyChannel]]


class Channel(Protocol, Generic[M]):
    """One way to reach a person. `M` is the message as this channel sends it.

    A new channel is one file in `channels/` with such a class and a `ChannelKind`, and one line in `QUEUES` (settings).
    """

    name: ClassVar[str]
    keeps_payload: ClassVar[bool]  # Whether a delivery's record holds the job's data, for sending it again by hand.
    providers: tuple[str, ...]  # Every `Route.provider` there may be.
    circuits: tuple[str, ...]  # Those of shared routes: while all of them are open, nothing is fetched.

    def recipient(self, notification: Notification) -> str:
        """Return the address it goes to. Pure. Raises PermanentError when the notification has none."""
        ...

    def shown(self, recipient: str) -> str:
        """Return an address as a log line may hold it: the person is masked. Pure."""
        ...

    async def compose(self, job: Job[Notification]) -> M:
        """Build the message; the same job builds the same message. May read what the notification refers to.

        Raises PermanentError for what can never be sent, and NotAccepted for what cannot be built now.
        """
        ...

    def routes(self, message: M) -> Sequence[Route[M]]:
        """Return the ways it may leave, the one to try first in front. Pure.

        `Route.send` hands the message to the provider, once, may take minutes and raises NotAccepted. Cancelling it
        leaves the provider's answer unknown, and the channel usable.
        """
        ...


AnyChannel = Channel[Any]
AnyRoute = Route[Any]
