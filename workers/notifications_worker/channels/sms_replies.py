"""What an SMS provider's answer, or its silence, means for a job, the circuit and the recipient: pure rules.

A request that was sent and not answered, or answered 5xx, may have been accepted. It is put off rather than counted as
an attempt, for it says that the provider is out, and looked up before the message is sent again. A refusal, a full
minute's quota and a connection that never came about are known not to have sent anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from notifications_worker.channel import Circuit, NotAccepted, Reply, Verdict
from notifications_worker.channels.sms_errors import ErrorClass, KnownError, known_error
from notifications_worker.channels.sms_number import shown
from worker_runtime.egress import EgressRefused, NoAnswer, NotReached
from worker_runtime.egress.retry_after import retry_after
from worker_runtime.outcome import DeadLetter, Defer, Retry
from worker_runtime.redaction import redact

if TYPE_CHECKING:
    from notifications_worker.channels.sms_message import SmsMessage
    from worker_runtime.egress import EgressReply

__all__ = ["FAILURES", "Refusal", "failed", "masked", "not_understood", "refused"]

FAILURES = (EgressRefused, NotReached, NoAnswer)
OUTAGE_PAUSE_SECONDS = 2.0
# A provider's own list may be a moment behind what it accepted.
LOOK_UP_PAUSE_SECONDS = 5.0
RATE_LIMIT_SECONDS = 60.0
LOGGED_CHARACTERS = 200

_SERVER_ERROR = 500
# Where the table is silent. What redirects, or knows no such address, is not the provider this worker was told of.
_BY_STATUS = {
    401: ErrorClass.MISCONFIGURED,
    402: ErrorClass.MISCONFIGURED,
    403: ErrorClass.MISCONFIGURED,
    404: ErrorClass.MISCONFIGURED,
    405: ErrorClass.MISCONFIGURED,
    407: ErrorClass.MISCONFIGURED,
    408: ErrorClass.UNKNOWN,
    429: ErrorClass.RATE_LIMITED,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A provider's error: its HTTP status, its own codes (the most telling first), its words, when to come back."""

    provider: str
    status: int
    codes: tuple[str, ...] = ()
    words: str = ""
    retry_after: str | None = None
    remote: str | None = None

    @property
    def known(self) -> KnownError | None:
        """What the table says of it."""
        return known_error(self.provider, *self.codes)

    @property
    def kind(self) -> ErrorClass:
        """Its class: by the table, else by the HTTP status."""
        return self.known.kind if self.known else by_status(self.status)

    def sentence(self) -> str:
        """Say what happened, in nothing of the provider's own words, which may quote the number or the text."""
        code = f" {self.codes[-1]}" if self.codes else ""
        meaning = f": {self.known.meaning}" if self.known else ""
        return f"{self.provider} answered {self.status}{code}{meaning}"


def by_status(status: int) -> ErrorClass:
    """Return what an error with a code nobody knows is taken for."""
    if status >= _SERVER_ERROR:
        return ErrorClass.UNKNOWN
    return _BY_STATUS.get(status, ErrorClass.MISCONFIGURED if status < 400 else ErrorClass.REJECTED)  # noqa: PLR2004


def refused(refusal: Refusal, message: SmsMessage, now: float) -> NotAccepted:
    """Return what follows from an error that a provider answered."""
    text = masked(refusal.words, message)
    code = refusal.codes[-1] if refusal.codes else None
    return NotAccepted(verdict(refusal, now), text, Reply(refusal.status, code, text, refusal.remote))


def verdict(refusal: Refusal, now: float) -> Verdict:
    """Decide. Every answer has one: a code that is in no table goes by its HTTP status."""
    sentence = refusal.sentence()
    match refusal.kind:
        case ErrorClass.REJECTED:
            return Verdict(DeadLetter("PROVIDER_REJECTED", sentence), Circuit.WORKS)
        case ErrorClass.OPTED_OUT:
            return Verdict(DeadLetter("PROVIDER_REJECTED", sentence), Circuit.WORKS, suppress="OPTED_OUT")
        case ErrorClass.MISCONFIGURED:
            return Verdict(Defer("PROVIDER_MISCONFIGURED", sentence, OUTAGE_PAUSE_SECONDS), Circuit.MISCONFIGURED)
        case ErrorClass.RATE_LIMITED:
            told = retry_after(refusal.retry_after, now)
            seconds = RATE_LIMIT_SECONDS if told is None else max(told, 1.0)
            return Verdict(Defer("RATE_LIMITED", sentence, seconds), Circuit.WORKS)
        case ErrorClass.BUSY:
            return Verdict(Retry("PROVIDER_BUSY", sentence), Circuit.WORKS)
        case ErrorClass.UNKNOWN:
            return _unknown(sentence, retry_after(refusal.retry_after, now) or 0.0)


def failed(provider: str, failure: Exception) -> NotAccepted:
    """Return what follows from one of `FAILURES`: no answer came at all."""
    sentence = f"{provider}: {failure}"
    match failure:
        case NotReached():
            found = Verdict(Defer("PROVIDER_UNAVAILABLE", sentence, OUTAGE_PAUSE_SECONDS), Circuit.FAILED)
        case EgressRefused():
            found = Verdict(Defer("PROVIDER_MISCONFIGURED", sentence, OUTAGE_PAUSE_SECONDS), Circuit.MISCONFIGURED)
        case _:
            found = _unknown(sentence)
    return NotAccepted(found, str(failure), Reply(text=str(failure)))


def not_understood(provider: str, reply: EgressReply) -> NotAccepted:
    """Return what follows from an answer that claims success and names no message."""
    sentence = f"{provider} answered {reply.status} with something that names no message"
    return NotAccepted(_unknown(sentence), sentence, Reply(reply.status, text=sentence, remote=reply.remote))


def _unknown(sentence: str, at_least_seconds: float = 0.0) -> Verdict:
    seconds = max(LOOK_UP_PAUSE_SECONDS, at_least_seconds)
    reason = f"{sentence}: it may or may not have been accepted"
    return Verdict(Defer("DELIVERY_UNKNOWN", reason, seconds), Circuit.FAILED, unsent=False)


def masked(words: str, message: SmsMessage) -> str:
    """Return a provider's words for the log: one line, without the number and without the text."""
    line = " ".join(words.split())
    for secret in (message.body, " ".join(message.body.split())):
        line = line.replace(secret, "<text>")
    line = line.replace(message.to, shown(message.to)).replace(message.to.removeprefix("+"), shown(message.to))
    return redact(line)[:LOGGED_CHARACTERS]
