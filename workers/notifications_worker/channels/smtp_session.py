"""One connection to the mail server: opened, used for message after message, closed. Reads like the protocol."""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import aiosmtplib

from notifications_worker.channels.smtp_replies import Fault, SmtpFailure, Stage

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from aiosmtplib.protocol import SMTPProtocol

__all__ = ["Envelope", "Patience", "Relay", "SmtpSession", "hello_name"]

_START_INPUT = 354
_SUCCESS = range(200, 300)
# The one mechanism that is tried: a wrong password tried three ways locks the account three times as fast.
_LOGIN_METHODS = ("plain", "login", "cram-md5")


def hello_name() -> str:
    """Return this host's full name for EHLO, or a literal without one; never asks DNS, which may block for long."""
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", name) else "[127.0.0.1]"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait, by RFC 5321, 4.5.3.2, except for `connect`: a server that is out is noticed soon.

    `message` is long because giving up after the final dot makes duplicates (RFC 1047).
    """

    connect: float = 10.0
    command: float = 60.0
    message: float = 300.0
    goodbye: float = 1.0


@dataclass(frozen=True, slots=True)
class Relay:
    """The mail server and how to talk to it. `tls` is never weakened: the server cannot talk us out of it."""

    host: str
    port: int
    tls: Literal["implicit", "starttls", "off"]
    tls_context: ssl.SSLContext | None = None
    username: str | None = None
    password: str = field(default="", repr=False)
    hello: str = field(default_factory=hello_name)
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message to one recipient. `content` has CRLF line ends; `utf8`: an address needs SMTPUTF8 (RFC 6531)."""

    sender: str
    recipient: str
    content: bytes
    message_id: str
    utf8: bool = False


@contextmanager
def _at(stage: Stage) -> Iterator[None]:
    try:
        yield
    except (aiosmtplib.SMTPException, OSError, UnicodeError) as error:
        raise SmtpFailure.of(stage, error) from error


class SmtpSession:
    """Serial: one caller at a time. After a cancellation, or a failure that is no reply, only `abort` is allowed."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._smtp = aiosmtplib.SMTP(
            hostname=relay.host,
            port=relay.port,
            local_hostname=relay.hello,
            timeout=relay.patience.command,
            use_tls=relay.tls == "implicit",
            start_tls=False,
            tls_context=relay.tls_context,
        )
        self.messages = 0

    @property
    def usable(self) -> bool:
        """Whether the connection is still there, as far as this side knows."""
        return self._smtp.is_connected

    async def open(self) -> None:
        """Connect, secure, greet, log in. Raises SmtpFailure; nothing stays open then."""
        try:
            await self._connect()
            await self._secure()
            await self._greet()
            await self._log_in()
        except BaseException:
            self.abort()
            raise

    async def _connect(self) -> None:
        with _at(Stage.CONNECT):
            await self._smtp.connect(timeout=self._relay.patience.connect)

    async def _secure(self) -> None:
        if self._relay.tls != "starttls":
            return
        await self._greet()
        if not self._smtp.supports_extension("starttls"):
            raise SmtpFailure(Stage.TLS, fault=Fault.NO_STARTTLS)
        with _at(Stage.TLS):
            await self._smtp.starttls(timeout=self._relay.patience.connect)

    async def _greet(self) -> None:
        with _at(Stage.HELLO):
            await self._smtp.ehlo(timeout=self._relay.patience.connect)

    async def _log_in(self) -> None:
        relay = self._relay
        if relay.username is None:
            return
        method = next((name for name in _LOGIN_METHODS if name in self._smtp.server_auth_methods), None)
        if method is None:
            raise SmtpFailure(Stage.AUTH, fault=Fault.NO_AUTH)
        authenticate = getattr(self._smtp, f"auth_{method.replace('-', '')}")
        with _at(Stage.AUTH):
            await authenticate(relay.username, relay.password)

    async def still_works(self) -> bool:
        """Ask with RSET whether the server still listens: it may have closed an idle connection."""
        try:
            with _at(Stage.RESET):
                await self._smtp.rset(timeout=self._relay.patience.goodbye)
        except SmtpFailure:
            self.abort()
            return False
        return True

    async def transmit(self, envelope: Envelope) -> str:
        """Send one message and return the server's acceptance text. Raises SmtpFailure.

        Either the server answered 2xx to the final dot, or this raises; a failure at `Stage.MESSAGE` that is no reply
        is the only one after which the message may have been accepted.
        """
        self.messages += 1
        await self._mail_from(envelope)
        await self._rcpt_to(envelope)
        await self._data()
        return await self._message(envelope.content)

    async def _mail_from(self, envelope: Envelope) -> None:
        if envelope.utf8 and not self._smtp.supports_extension("smtputf8"):
            raise SmtpFailure(Stage.MAIL, fault=Fault.NO_SMTPUTF8)
        options = ["SMTPUTF8", "BODY=8BITMIME"] if envelope.utf8 else []
        if self._smtp.supports_extension("size"):
            options.append(f"SIZE={len(envelope.content)}")
        with _at(Stage.MAIL):
            await self._smtp.mail(envelope.sender, options=options, encoding="utf-8")

    async def _rcpt_to(self, envelope: Envelope) -> None:
        with _at(Stage.RCPT):
            await self._smtp.rcpt(envelope.recipient, encoding="utf-8")

    async def _data(self) -> None:
        with _at(Stage.DATA):
            code, text = await self._smtp.execute_command(b"DATA")
        if code != _START_INPUT:
            raise SmtpFailure.reply(Stage.DATA, code, text)

    async def _message(self, content: bytes) -> str:
        # aiosmtplib's data() sends DATA and the message in one go: what failed before the message (nothing was sent)
        # could not be told from what failed after the final dot (it may have been accepted).
        with _at(Stage.MESSAGE):
            protocol = self._protocol()
            protocol.write(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
            code, text = await protocol.read_response(timeout=self._relay.patience.message)
        if code not in _SUCCESS:
            raise SmtpFailure.reply(Stage.MESSAGE, code, text)
        return text

    def _protocol(self) -> SMTPProtocol:
        if self._smtp.protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        return self._smtp.protocol

    async def close(self) -> None:
        """Say QUIT, briefly, and close. Raises nothing: the messages are where they are."""
        try:
            with suppress(SmtpFailure), _at(Stage.RESET):
                await self._smtp.quit(timeout=self._relay.patience.goodbye)
        finally:
            self.abort()

    def abort(self) -> None:
        """Close without a word. Harmless when closed already."""
        self._smtp.close()
