"""An SMTP server that does what a test tells it: any reply, a hang or a hang-up, at any stage, and counts what it took.

    async with ScriptedSmtp() as server:
        server.will("RCPT", "450 4.2.0 greylisted", CLOSE)   # the first RCPT, the second; then it accepts again
        server.always("MESSAGE", HANG)

A reply with line breaks is sent as a multiline one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, Self

import trustme

if TYPE_CHECKING:
    from pathlib import Path

Stage = Literal["BANNER", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "MESSAGE", "RSET", "QUIT"]


class Action(Enum):
    HANG = "never answer"
    CLOSE = "close the connection instead of answering"
    ACCEPT_AND_CLOSE = "keep the message, close the connection without saying so"
    ACCEPT_AND_HANG = "keep the message, never say so"
    CLOSE_WHILE_READING = "close the connection when a part of the message has come"


LONGEST_MAIL = 64 * 1024 * 1024
HANG = Action.HANG
CLOSE = Action.CLOSE
ACCEPT_AND_CLOSE = Action.ACCEPT_AND_CLOSE
ACCEPT_AND_HANG = Action.ACCEPT_AND_HANG
CLOSE_WHILE_READING = Action.CLOSE_WHILE_READING


@dataclass(frozen=True)
class After:
    """Answer when the event comes."""

    event: asyncio.Event
    reply: str


Step = str | bytes | Action | After
POSITIVE: dict[Stage, str] = {
    "BANNER": "220 scripted ESMTP",
    "STARTTLS": "220 go ahead",
    "AUTH": "235 2.7.0 welcome",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DATA": "354 end with a dot",
    "MESSAGE": "250 2.0.0 Ok: queued as 4F2A",
    "RSET": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
}


@dataclass
class Accepted:
    sender: str
    recipient: str
    content: bytes
    connection: int


@dataclass
class _Conversation:
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    secure: bool = False
    sender: str = ""
    recipient: str = ""
    commands: list[str] = field(default_factory=list)
    last_reply: str = ""

    def note_address(self, verb: str, command: str) -> None:
        address = command.partition("<")[2].partition(">")[0]
        if verb == "MAIL":
            self.sender = address
        elif verb == "RCPT":
            self.recipient = address


class ScriptedSmtp:
    """`tls`: offered by STARTTLS, from the first byte, or not at all. `name`: what the certificate is for."""

    def __init__(
        self,
        *,
        tls: Literal["starttls", "implicit", "off"] = "off",
        extensions: tuple[str, ...] = ("SIZE 10000000", "8BITMIME", "AUTH PLAIN LOGIN"),
        name: str = "127.0.0.1",
    ) -> None:
        self.tls = tls
        self.extensions = extensions
        self.accepted: list[Accepted] = []
        self.conversations: list[_Conversation] = []
        self.most_at_once = 0
        self.port = 0
        self._now = 0
        self._next: dict[str, deque[Step]] = {}
        self._always: dict[str, Step] = {}
        self._reached: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.authority = trustme.CA()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(name).configure_cert(self._context)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        secure = self._context if self.tls == "implicit" else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=secure, limit=LONGEST_MAIL)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def ca_file(self, folder: Path) -> Path:
        path = folder / "scripted-ca.pem"
        self.authority.cert_pem.write_to_path(str(path))
        return path

    def will(self, stage: Stage, *steps: Step) -> None:
        self._next.setdefault(stage, deque()).extend(steps)

    def always(self, stage: Stage, step: Step) -> None:
        self._always[stage] = step

    def healed(self) -> None:
        self._next.clear()
        self._always.clear()

    def times(self, stage: Stage) -> int:
        return self._reached[stage]

    async def reached(self, stage: Stage, times: int = 1, *, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: self._reached[stage] >= times)

    async def _note(self, stage: str) -> None:
        async with self._changed:
            self._reached[stage] += 1
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        talk = _Conversation(len(self.conversations), reader, writer, secure=self.tls == "implicit")
        self.conversations.append(talk)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await self._talk(talk)
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError, EOFError):
            return
        finally:
            self._now -= 1
            talk.writer.transport.abort()

    async def _talk(self, talk: _Conversation) -> None:
        going = await self._answer(talk, "BANNER")
        while going and (line := await talk.reader.readline()):
            command = line.decode().strip()
            talk.commands.append(command)
            going = await self._obey(talk, command)

    async def _obey(self, talk: _Conversation, command: str) -> bool:
        verb = command.partition(" ")[0].upper()
        match verb:
            case "EHLO" | "HELO":
                return await self._answer(talk, "EHLO", self._greeting(talk))
            case "STARTTLS":
                return await self._answer(talk, "STARTTLS") and await self._secure(talk)
            case "DATA":
                return await self._data(talk)
            case "QUIT":
                await self._answer(talk, "QUIT")
                return False
            case "AUTH" | "RSET" | "MAIL" | "RCPT":
                talk.note_address(verb, command)
                return await self._answer(talk, verb)
        return await self._say(talk, "502 5.5.2 no such command")

    def _greeting(self, talk: _Conversation) -> str:
        offered = self.extensions + (("STARTTLS",) if self.tls == "starttls" and not talk.secure else ())
        return "\n".join(("250 scripted", *offered)) if offered else "250 scripted"

    async def _secure(self, talk: _Conversation) -> bool:
        if talk.commands[-1].upper() != "STARTTLS" or self.tls != "starttls":
            return True
        await talk.writer.start_tls(self._context)
        talk.secure = True
        return True

    async def _data(self, talk: _Conversation) -> bool:
        said = await self._answer(talk, "DATA")
        if not said or talk.last_reply[:3] != "354":
            return said
        if self._peek("MESSAGE") is CLOSE_WHILE_READING:
            await talk.reader.readline()
            return await self._answer(talk, "MESSAGE")
        content = await talk.reader.readuntil(b"\r\n.\r\n")
        return await self._answer(talk, "MESSAGE", content=content[:-3])

    def _peek(self, stage: str) -> Step | None:
        queued = self._next.get(stage)
        return queued[0] if queued else self._always.get(stage)

    async def _answer(self, talk: _Conversation, stage: Stage, default: str = "", content: bytes | None = None) -> bool:
        queued = self._next.get(stage)
        step = queued.popleft() if queued else self._always.get(stage, default or POSITIVE.get(stage, "250 ok"))
        reply = step.reply if isinstance(step, After) else step
        if content is not None and (reply in {ACCEPT_AND_CLOSE, ACCEPT_AND_HANG} or str(reply).startswith("2")):
            self.accepted.append(Accepted(talk.sender, talk.recipient, content, talk.number))
        await self._note(stage)
        match step:
            case After(event, reply):
                await event.wait()
                return await self._say(talk, reply)
            case Action.HANG | Action.ACCEPT_AND_HANG:
                await asyncio.Event().wait()
                return False
            case Action():
                return False
        return await self._say(talk, step)

    async def _say(self, talk: _Conversation, reply: str | bytes) -> bool:
        if isinstance(reply, bytes):
            talk.writer.write(reply)
        else:
            talk.last_reply = reply
            talk.writer.write(wire(reply))
        await talk.writer.drain()
        return not (isinstance(reply, str) and reply.startswith("421"))


def wire(reply: str) -> bytes:
    code, _, text = reply.partition(" ")
    first, *rest = text.split("\n")
    lines = [first, *rest]
    marked = [f"{code}{'-' if number < len(lines) - 1 else ' '}{line}" for number, line in enumerate(lines)]
    return "".join(f"{line}\r\n" for line in marked).encode()
