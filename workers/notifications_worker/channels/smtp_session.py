"""One connection to the mail server: opened, used for message after message, closed. Reads like the protocol."""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import aiosmtplib

from notifications_worker.channels.smtp_dialogue import Answer, Dialogue, NotSmtp
from notifications_worker.channels.smtp_replies import Fault, SmtpFailure, Stage

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Iterator, Sequence

__all__ = ["Envelope", "Patience", "Relay", "SmtpSession", "hello_name"]

_START_INPUT = 354
_SUCCESS = range(200, 300)
_POSITIVE = {Stage.RESET: (250,), Stage.MAIL: (250,), Stage.RCPT: (250, 251), Stage.DATA: (_START_INPUT,)}
BLOCK_BYTES = 65_536
_CONTROL_CHARACTERS = re.compile(rb"[\x00-\x1f\x7f]")
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
    block: float = 180.0
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
    """One message to one recipient.

    `content` has CRLF line ends; `utf8`: an address needs SMTPUTF8 (RFC 6531); `signed_by`: where the keys are
    published that signed it; `urgent`: it need not wait for a connection that others use.
    """

    sender: str
    recipient: str
    content: bytes
    message_id: str
    utf8: bool = False
    signed_by: tuple[str, ...] = ()
    urgent: bool = False


@contextmanager
def _at(stage: Stage) -> Iterator[None]:
    try:
        yield
    except (aiosmtplib.SMTPException, NotSmtp, OSError, ValueError) as error:
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
        self._talk: Dialogue | None = None
        self.messages = 0

    @property
    def usable(self) -> bool:
        """Whether the connection is still there, as far as this side knows."""
        return self._talk is not None and self._talk.usable

    @property
    def remote(self) -> str | None:
        """The address and port that answered."""
        return self._talk.remote if self._talk else None

    async def open(self) -> None:
        """Connect, secure, greet, log in. Raises SmtpFailure; nothing stays open then."""
        try:
            await self._connect()
            await self._secure()
            await self._greet()
            await self._log_in()
            self._take_over()
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

    def _take_over(self) -> None:
        with _at(Stage.HELLO):
            if self._smtp.transport is None:
                raise ConnectionResetError("Connection lost")
            self._talk = Dialogue(cast("asyncio.Transport", self._smtp.transport))

    async def transmit(self, envelope: Envelope) -> Answer:
        """Send one message and return the server's acceptance. Raises SmtpFailure.

        Either the server answered 2xx to the final dot, or this raises; a failure at `Stage.MESSAGE` that is no reply
        is the only one after which the message may have been accepted. One at `Stage.RESET` says that the server had
        closed a connection kept for too long.
        """
        self._must_be_acceptable(envelope)
        commands = self._commands(envelope)
        self.messages += 1
        for together in [commands] if self._offers("pipelining") else [[command] for command in commands]:
            await self._say(together)
        return await self._message(envelope.content)

    def _must_be_acceptable(self, envelope: Envelope) -> None:
        if envelope.utf8 and not self._offers("smtputf8"):
            raise SmtpFailure(Stage.MAIL, fault=Fault.NO_SMTPUTF8)
        limit = self._smtp.esmtp_extensions.get("size", "").strip()
        if limit.isdecimal() and 0 < int(limit) < len(envelope.content):
            raise SmtpFailure(Stage.MAIL, fault=Fault.TOO_LARGE, text=f"{len(envelope.content)} of {limit} bytes")

    def _commands(self, envelope: Envelope) -> list[tuple[Stage, bytes]]:
        """RSET asks a kept connection whether the server still listens."""
        reset = [(Stage.RESET, b"RSET")] if self.messages else []
        return [
            *reset,
            (Stage.MAIL, _command(Stage.MAIL, envelope.sender, *self._options(envelope))),
            (Stage.RCPT, _command(Stage.RCPT, envelope.recipient)),
            (Stage.DATA, b"DATA"),
        ]

    def _options(self, envelope: Envelope) -> list[str]:
        options = ["SMTPUTF8", "BODY=8BITMIME"] if envelope.utf8 else []
        return [*options, f"SIZE={len(envelope.content)}"] if self._offers("size") else options

    def _offers(self, extension: str) -> bool:
        return self._smtp.supports_extension(extension)

    async def _say(self, commands: Sequence[tuple[Stage, bytes]]) -> None:
        """Give commands, in one go, and raise the first refusal; the replies to those after it are heard out."""
        talk = self._dialogue()
        with _at(commands[0][0]):
            talk.ask(*(command for _, command in commands))
        for number, (stage, _) in enumerate(commands):
            try:
                await self._positive(talk, stage)
            except SmtpFailure as refusal:
                await self._hear_out(talk, refusal, len(commands) - number - 1)
                raise

    async def _positive(self, talk: Dialogue, stage: Stage) -> None:
        patience = self._relay.patience
        with _at(stage):
            code, text = await talk.answer(patience.goodbye if stage is Stage.RESET else patience.command)
        if code not in _POSITIVE[stage]:
            raise SmtpFailure.reply(stage, code, text)

    async def _hear_out(self, talk: Dialogue, refusal: SmtpFailure, replies: int) -> None:
        """Get back in step after a refusal. A server that asks for a message all the same is left: it would get one."""
        try:
            heard = [await talk.answer(self._relay.patience.command) for _ in range(replies if refusal.code else 0)]
        except (NotSmtp, OSError):
            self.abort()
            return
        if refusal.fault or any(code == _START_INPUT for code, _ in heard):
            self.abort()

    async def _message(self, content: bytes) -> Answer:
        talk = self._dialogue()
        *blocks, last = _blocks(_dotted(content) + b".\r\n")
        talk.expect()
        with _at(Stage.DATA):  # Without the final dot nothing is accepted.
            for block in blocks:
                if talk.answered:
                    break
                await talk.write(block, self._relay.patience.block)
        return await self._end(talk, b"" if talk.answered else last)

    async def _end(self, talk: Dialogue, last: bytes) -> Answer:
        with _at(Stage.MESSAGE):
            if last:
                await talk.write(last, self._relay.patience.message)
            answer = await talk.answer(self._relay.patience.message)
        if not last:
            self.abort()  # It refused in mid-message, and would read the rest of it as commands.
        if answer.code not in _SUCCESS or not last:
            raise SmtpFailure.reply(Stage.MESSAGE, *answer)
        return answer

    def _dialogue(self) -> Dialogue:
        if self._talk is None:
            raise SmtpFailure(Stage.CONNECT, fault=Fault.LOST)
        return self._talk

    async def close(self) -> None:
        """Say QUIT, briefly, and close. Raises nothing: the messages are where they are."""
        try:
            with suppress(SmtpFailure), _at(Stage.RESET):
                await self._goodbye(self._dialogue())
        finally:
            self.abort()

    async def _goodbye(self, talk: Dialogue) -> None:
        talk.ask(b"QUIT")
        await talk.answer(self._relay.patience.goodbye)

    def abort(self) -> None:
        """Close without a word. Harmless when closed already."""
        if self._talk:
            self._talk.abort()
        else:
            self._smtp.close()


def _command(stage: Stage, address: str, *options: str) -> bytes:
    """Write a command that names an address: one line, whatever the address holds."""
    with _at(stage):
        words = " ".join([f"{stage.value}:<{address}>", *options]).encode()
    if _CONTROL_CHARACTERS.search(words):
        raise SmtpFailure(stage, fault=Fault.UNSPEAKABLE)
    return words


def _dotted(content: bytes) -> bytes:
    """Double the dots that lines begin with (RFC 5321, 4.5.2)."""
    doubled = content.replace(b"\r\n.", b"\r\n..")
    return b"." + doubled if doubled.startswith(b".") else doubled


def _blocks(content: bytes) -> list[bytes]:
    return [content[start : start + BLOCK_BYTES] for start in range(0, len(content), BLOCK_BYTES)]
