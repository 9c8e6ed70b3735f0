"""What an SMTP server's answer, or its silence, means for a job and for the circuit: pure rules.

Codes are RFC 5321's, enhanced codes (`5.1.1`) RFC 3463's. An enhanced code says more than the code it comes with, so it
is looked at first wherever both speak.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from enum import Enum

import aiosmtplib

from notifications_worker.channel import Circuit, Verdict
from worker_runtime.outcome import DeadLetter, Defer, Retry

__all__ = ["Fault", "SmtpFailure", "Stage", "classify", "enhanced_code", "masked"]

GREYLIST_FLOOR_SECONDS = 300.0
MAILBOX_FULL_FLOOR_SECONDS = 3600.0
OUTAGE_PAUSE_SECONDS = 2.0
LOGGED_CHARACTERS = 200
HARD_BOUNCE = "HARD_BOUNCE"

SHOWN_CHARACTERS = 150
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_REFUSALS = range(400, 600)
_FINAL = 500
_CLOSING = 421
_LOGIN_UNAVAILABLE = 454
_STORAGE_EXCEEDED = 552
_CREDENTIAL_CODES = frozenset({530, 534, 535, 538})
_PROTOCOL_CODES = range(500, 505)
_TOO_LARGE = frozenset({"5.3.4", "5.2.3"})
_NO_SUCH_RECIPIENT = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
_BAD_SENDER = frozenset({"5.1.7", "5.1.8"})
_ADDRESS_SYNTAX_CODES = frozenset({501, 504})


class Stage(Enum):
    """How far a conversation came: the value completes the sentence "the mail server ... to"."""

    CONNECT = "the connection"
    TLS = "STARTTLS"
    HELLO = "EHLO"
    AUTH = "AUTH"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    MESSAGE = "the message"
    RESET = "RSET"


# There is one recipient a message, so what is said of the message's end is said of them.
_ABOUT_THE_RECIPIENT = frozenset({Stage.RCPT, Stage.DATA, Stage.MESSAGE})
_BEFORE_ANY_MESSAGE = frozenset({Stage.CONNECT, Stage.TLS, Stage.HELLO, Stage.AUTH, Stage.RESET})


class Fault(Enum):
    """What went wrong other than by a reply; the value is the rest of a sentence about the mail server."""

    UNREACHABLE = "could not be reached"
    LOST = "closed the connection"
    TIMEOUT = "did not answer in time"
    GARBLED = "answered something that is not SMTP"
    CERTIFICATE = "showed a certificate that is not trusted for its name (SMTP_CA_FILE, SMTP_HOST)"
    NO_TLS = "does not speak TLS the way SMTP_TLS and SMTP_PORT say"
    NO_STARTTLS = "does not offer STARTTLS, and mail is never sent without it unless SMTP_TLS=off"
    NO_AUTH = "offers no way to log in that this worker knows (SMTP_USER is set)"
    NO_SMTPUTF8 = "cannot take an address with letters outside ASCII before the @"
    TOO_LARGE = "takes no message of this size"
    UNSPEAKABLE = "cannot be told an address with a line break or another control character"


# The server is well, and this message can never go there.
_ABOUT_THE_MESSAGE = {
    Fault.NO_SMTPUTF8: "PROVIDER_REJECTED",
    Fault.TOO_LARGE: "MESSAGE_TOO_LARGE",
    Fault.UNSPEAKABLE: "PROVIDER_REJECTED",
}


@dataclass(eq=False)  # Not frozen: Python itself writes the traceback into an exception.
class SmtpFailure(Exception):
    """The server refused (`code`, `text`) or failed (`fault`) at `stage`; `remote` is its address and port."""

    stage: Stage
    code: int | None = None
    text: str = ""
    fault: Fault | None = None
    remote: str | None = None

    def __str__(self) -> str:
        return self.sentence()

    @classmethod
    def of(cls, stage: Stage, error: Exception) -> SmtpFailure:
        """Name what `error`, raised by aiosmtplib or a socket, says."""
        if isinstance(error, aiosmtplib.SMTPResponseException):
            return cls.reply(stage, error.code, error.message)
        # Only a connection's own error is told: what a server said may quote an address.
        text = str(error)[:SHOWN_CHARACTERS] if stage is Stage.CONNECT else ""
        return cls(stage, text=text, fault=_fault(error))

    @classmethod
    def reply(cls, stage: Stage, code: int, text: str) -> SmtpFailure:
        """Name a reply that is not the wanted one; a positive one, or none at all, is not SMTP here."""
        if code not in _REFUSALS:
            return cls(stage, text=text, fault=Fault.GARBLED)
        return cls(stage, code, text)

    @property
    def enhanced(self) -> str:
        """The enhanced status code, or an empty string. One of another class than the reply's is not believed."""
        return enhanced_code(self.code, self.text)

    @property
    def stale(self) -> bool:
        """Whether a kept connection may fail so because the server had enough of it: no message was begun.

        Silence to RSET, or a goodbye to the next MAIL of a server that counts messages.
        """
        gone = self.code == _CLOSING or self.fault is Fault.LOST
        return self.stage is Stage.RESET or (self.stage is Stage.MAIL and gone)

    @property
    def in_step(self) -> bool:
        """Whether the connection can be used for the next message."""
        return self.stage is not Stage.RESET and (self.fault is None or self.fault in _ABOUT_THE_MESSAGE)

    def sentence(self) -> str:
        """Say what happened in words that hold nothing of the server's text, which may quote an address."""
        if self.fault is Fault.UNREACHABLE:
            return f"the mail server {self.fault.value}: {self.text or 'no reason given'}"
        if self.fault:
            return f"the mail server {self.fault.value}, at {self.stage.value}"
        return f"the mail server answered {self.code} {self.enhanced}".rstrip() + f" to {self.stage.value}"


def enhanced_code(code: int | None, text: str) -> str:
    """Return the code that a reply's text begins with, or an empty string."""
    found = _ENHANCED.match(text)
    return found[1] if found and found[1][0] == str(code)[:1] else ""


def _fault(error: Exception) -> Fault:
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Fault.CERTIFICATE
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return Fault.NO_TLS
    if isinstance(error, TimeoutError):
        return Fault.TIMEOUT
    if isinstance(error, aiosmtplib.SMTPConnectError) or not isinstance(error, (ConnectionError, ssl.SSLError)):
        return Fault.UNREACHABLE if isinstance(error, OSError) else Fault.GARBLED
    return Fault.LOST


def classify(failure: SmtpFailure) -> Verdict:
    """Decide what follows. Every failure has an answer: a server may say anything at any stage."""
    return _unknown_end(failure) or _misconfiguration(failure) or _outage(failure) or _refusal(failure)


def _unknown_end(failure: SmtpFailure) -> Verdict | None:
    """After the final dot the server may have accepted: sent again under the same Message-ID, for an attempt."""
    if failure.stage is not Stage.MESSAGE or failure.fault is None:
        return None
    reason = f"{failure.sentence()}: it may or may not have been delivered"
    return Verdict(Retry("DELIVERY_UNKNOWN", reason), Circuit.UNTOLD, unsent=False)


def _misconfiguration(failure: SmtpFailure) -> Verdict | None:
    """Credentials, TLS or a protocol error: the whole backlog would be refused, so none of it is."""
    if not (_tls_or_login_impossible(failure) or _credentials_refused(failure) or _protocol_refused(failure)):
        return None
    return Verdict(Defer("PROVIDER_MISCONFIGURED", failure.sentence(), OUTAGE_PAUSE_SECONDS), Circuit.MISCONFIGURED)


def _tls_or_login_impossible(failure: SmtpFailure) -> bool:
    return failure.fault in {Fault.CERTIFICATE, Fault.NO_TLS, Fault.NO_STARTTLS, Fault.NO_AUTH}


def _credentials_refused(failure: SmtpFailure) -> bool:
    return (
        failure.code in _CREDENTIAL_CODES
        or failure.enhanced == "5.7.8"
        or (failure.code == _LOGIN_UNAVAILABLE and failure.enhanced == "4.7.0")
        or (failure.stage in {Stage.TLS, Stage.AUTH} and _not_just_now(failure.code))
    )


def _not_just_now(code: int | None) -> bool:
    return code is not None and (code >= _FINAL or code == _LOGIN_UNAVAILABLE)


def _protocol_refused(failure: SmtpFailure) -> bool:
    if failure.stage is Stage.RCPT and failure.code in _ADDRESS_SYNTAX_CODES:
        return False  # Servers answer so to one odd address; it must not stop everybody's mail.
    return failure.code in _PROTOCOL_CODES or failure.enhanced in _BAD_SENDER


def _outage(failure: SmtpFailure) -> Verdict | None:
    """Not about this message: it waits, and loses no attempt."""
    if not (_server_failed(failure) or _server_closing(failure) or _refused_everybody(failure)):
        return None
    return Verdict(Defer("PROVIDER_UNAVAILABLE", failure.sentence(), OUTAGE_PAUSE_SECONDS), Circuit.FAILED)


def _server_failed(failure: SmtpFailure) -> bool:
    return failure.fault is not None and failure.fault not in _ABOUT_THE_MESSAGE


def _server_closing(failure: SmtpFailure) -> bool:
    return failure.code == _CLOSING or failure.enhanced == "4.3.2" or failure.enhanced.startswith("4.4.")


def _refused_everybody(failure: SmtpFailure) -> bool:
    return failure.stage in _BEFORE_ANY_MESSAGE


def _refusal(failure: SmtpFailure) -> Verdict:
    """About this recipient or this message."""
    return Verdict(_later(failure) or _never(failure), Circuit.WORKS, suppress=_dead_address(failure))


def _never(failure: SmtpFailure) -> DeadLetter:
    code = _ABOUT_THE_MESSAGE[failure.fault] if failure.fault else "PROVIDER_REJECTED"
    return DeadLetter(code, failure.sentence())


def _dead_address(failure: SmtpFailure) -> str | None:
    """Tell a recipient who is not there from one who is not to have this message."""
    return HARD_BOUNCE if failure.enhanced in _NO_SUCH_RECIPIENT and failure.stage in _ABOUT_THE_RECIPIENT else None


def _later(failure: SmtpFailure) -> Retry | None:
    if failure.code is None:
        return None
    if failure.enhanced.endswith(".2.2"):
        return Retry("MAILBOX_FULL", failure.sentence(), MAILBOX_FULL_FLOOR_SECONDS)
    if _greylisted(failure):
        return Retry("GREYLISTED", failure.sentence(), GREYLIST_FLOOR_SECONDS)
    if failure.code < _FINAL or _too_many_recipients(failure):
        return Retry("PROVIDER_BUSY", failure.sentence())
    return None


def _greylisted(failure: SmtpFailure) -> bool:
    says_so = re.search("gr[ea]y-?list", failure.text, re.IGNORECASE)
    return failure.code in {450, 451} and (failure.enhanced.startswith("4.7.") or says_so is not None)


def _too_many_recipients(failure: SmtpFailure) -> bool:
    """RFC 5321, 4.5.3.1.10: a 552 in answer to RCPT is to be read as 452."""
    return failure.stage is Stage.RCPT and failure.code == _STORAGE_EXCEEDED and failure.enhanced not in _TOO_LARGE


def masked(text: str, address: str) -> str:
    """Return a server's words for the log: one line, without addresses and without the recipient's name."""
    words = re.sub(r"\S*@\S*", "<address>", " ".join(text.split()))
    name = address.partition("@")[0]
    if name.casefold() not in words.casefold():
        # As nearly always. A pattern for each recipient would cost more than all the rest.
        return words[:LOGGED_CHARACTERS]
    return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "<recipient>", words, flags=re.IGNORECASE)[:LOGGED_CHARACTERS]
