"""A real SMTP server on the loopback interface that accepts every mail and keeps it."""

from __future__ import annotations

import asyncio
import hmac
import shutil
import ssl
import tempfile
import threading
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage

Security = Literal["starttls", "implicit", "off"]
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """A mail the server answered with 250: the envelope, the bytes as they came, and the moment (UTC)."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    received_at: datetime

    @property
    def message(self) -> EmailMessage:
        """The parsed mail: headers by name, parts by `get_body` and `iter_attachments`."""
        return message_from_bytes(self.raw, policy=policy.default)

    @property
    def text(self) -> str:
        """The plain-text body; empty when there is none."""
        body = self.message.get_body(("plain",))
        return str(body.get_content()) if body else ""

    def header(self, name: str) -> str:
        """Return a header's value, empty when it is absent."""
        return str(self.message.get(name, ""))


class Mailbox:
    """An SMTP server in a thread of its own, for synchronous and asynchronous callers alike.

    `security` is `starttls` (required before anything else), `implicit` (TLS from the first byte) or `off`; the
    certificate is signed by a fresh authority, whose own is written to `ca_file` (a temporary file unless named). With
    `login` (user, password) nobody may send unauthenticated. With `folder` each mail is also written there as
    `0001.eml` and so on.
    """

    def __init__(
        self,
        *,
        security: Security = "starttls",
        login: tuple[str, str] | None = None,
        folder: Path | None = None,
        ca_file: Path | None = None,
        port: int = 0,
    ) -> None:
        self.host = HOST
        self.port = port
        self.security = security
        self.login = login
        self.folder = folder
        self._mails: list[ReceivedMail] = []
        self._changed = threading.Condition()
        self._authority = trustme.CA()
        self.ca_file = ca_file or self._throw_away_folder() / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; `port` is known afterwards. Raises OSError when the port asked for is taken."""
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listening: Future[int] = Future()
        self._thread = threading.Thread(target=self._serve_until_stopped, name="mailbox", daemon=True)
        self._thread.start()
        self.port = self._listening.result()

    def stop(self) -> None:
        """Stop listening and drop the connections; what was received stays. `start` reopens on the same port."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def messages(self) -> list[ReceivedMail]:
        """A copy of everything received so far, in order of arrival."""
        with self._changed:
            return list(self._mails)

    def forget(self) -> None:
        """Empty the mailbox."""
        with self._changed:
            self._mails.clear()

    def wait_until(self, enough: Callable[[list[ReceivedMail]], bool], *, seconds: float) -> bool:
        """Block until `enough` says yes to what has arrived; false when `seconds` passed before. Must not touch us."""
        with self._changed:
            return self._changed.wait_for(lambda: enough(list(self._mails)), seconds)

    def wait_for(self, count: int, *, seconds: float = 10.0) -> list[ReceivedMail]:
        """Block until `count` mails are here and return them. Raises TimeoutError, saying how many came."""
        if not self.wait_until(lambda mails: len(mails) >= count, seconds=seconds):
            raise TimeoutError(f"{len(self.messages)} of {count} mails arrived within {seconds} s")
        return self.messages

    async def arrived(self, count: int, *, seconds: float = 10.0) -> list[ReceivedMail]:
        """Do as `wait_for` does without blocking the event loop."""
        return await asyncio.to_thread(self.wait_for, count, seconds=seconds)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a mail; aiosmtpd calls this by its name."""
        mail = ReceivedMail(
            sender=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            raw=cast("bytes", envelope.original_content),
            received_at=datetime.now(UTC),
        )
        with self._changed:
            self._mails.append(mail)
            self._write(len(self._mails), mail)
            self._changed.notify_all()
        return "250 2.0.0 kept"

    def _throw_away_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="mailbox-"))
        weakref.finalize(self, shutil.rmtree, folder)
        return folder

    def _write(self, number: int, mail: ReceivedMail) -> None:
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{number:04}.eml").write_bytes(mail.raw)

    def _serve_until_stopped(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        conversations: set[_Conversation] = set()
        try:
            server = await self._listen(conversations)
        except OSError as error:
            self._listening.set_exception(error)
            return
        self._listening.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        for conversation in conversations.copy():
            conversation.drop()

    async def _listen(self, open_now: set[_Conversation]) -> asyncio.Server:
        context = self._tls_context()
        return await self._loop.create_server(
            lambda: self._conversation(context, open_now),
            self.host,
            self.port,
            ssl=context if self.security == "implicit" else None,
        )

    def _conversation(self, context: ssl.SSLContext, open_now: set[_Conversation]) -> _Conversation:
        return _Conversation(
            open_now,
            self,
            hostname="localhost",
            loop=self._loop,
            enable_SMTPUTF8=True,
            tls_context=context if self.security == "starttls" else None,
            require_starttls=self.security == "starttls",
            authenticator=self._authenticate,
            auth_required=self.login is not None,
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, offered: LoginPassword
    ) -> AuthResult:
        expected = "\0".join(self.login or ("", "")).encode()
        return AuthResult(
            success=hmac.compare_digest(offered.login + b"\0" + offered.password, expected), handled=False
        )

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("localhost", HOST).configure_cert(context)
        return context


class _Conversation(SMTP):
    """One client's connection, known to the mailbox so that it can be dropped."""

    def __init__(self, open_now: set[_Conversation], mailbox: Mailbox, **settings: Any) -> None:
        super().__init__(mailbox, **settings)
        self._open_now = open_now
        # aiosmtpd knows TLS by STARTTLS only, so it would refuse every login elsewhere; said as an argument it warns.
        self._auth_require_tls = mailbox.security == "starttls"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the client is there (called a second time after STARTTLS)."""
        self._open_now.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the client is gone."""
        self._open_now.discard(self)
        super().connection_lost(error)

    def drop(self) -> None:
        """Break the connection off."""
        transport = self._original_transport or self.transport
        if isinstance(transport, asyncio.Transport) and not transport.is_closing():
            transport.abort()
