"""Connections to one mail server, kept and reused: few enough for the server, fresh enough to be alive."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from notifications_worker.channels.smtp_replies import SmtpFailure
from notifications_worker.channels.smtp_session import SmtpSession

if TYPE_CHECKING:
    from notifications_worker.channels.smtp_session import Envelope, Relay

__all__ = ["PoolLimits", "SmtpPool", "Transmitted"]

# A server that ignores QUIT must not keep the process.
CLOSE_SECONDS = 1.5


class Transmitted(NamedTuple):
    """The acceptance of a message, and the address and port it came from."""

    code: int
    text: str
    remote: str | None


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Nodemailer's defaults, which relays are used to; `idle_seconds` is below what servers allow (30 to 300 s).

    `urgent` are the connections beyond `connections` that only urgent messages may use.
    """

    connections: int = 5
    urgent: int = 1
    messages_per_connection: int = 100
    idle_seconds: float = 25.0


class SmtpPool:
    """At most `connections` conversations at once, and some for urgent messages; callers beyond that wait, in order."""

    def __init__(self, relay: Relay, limits: PoolLimits | None = None) -> None:
        self._relay = relay
        self._limits = limits or PoolLimits()
        self._slots = asyncio.Semaphore(self._limits.connections)
        self._reserve = asyncio.Semaphore(self._limits.urgent)
        self._idle: dict[SmtpSession, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def transmit(self, envelope: Envelope) -> Transmitted:
        """Send one message over a connection that works. Raises SmtpFailure.

        A kept connection that the server closed meanwhile is replaced at nobody's cost.
        """
        async with self._reserve if envelope.urgent and self._slots.locked() else self._slots:
            while session := self._kept():
                try:
                    return await self._over(session, envelope)
                except SmtpFailure as failure:
                    if not failure.stale:
                        raise
            return await self._over(await self._opened(), envelope)

    def _kept(self) -> SmtpSession | None:
        while self._idle:
            session, timer = self._idle.popitem()
            timer.cancel()
            if session.usable:
                return session
            session.abort()
        return None

    async def _over(self, session: SmtpSession, envelope: Envelope) -> Transmitted:
        remote = session.remote
        try:
            answer = await session.transmit(envelope)
        except SmtpFailure as failure:
            failure.remote = remote
            self._after(session, in_step=failure.in_step)
            raise
        except BaseException:
            session.abort()  # Cancelled in mid-sentence: the next reply would answer the wrong command.
            raise
        self._after(session, in_step=True)
        return Transmitted(answer.code, answer.text, remote)

    async def _opened(self) -> SmtpSession:
        session = SmtpSession(self._relay)
        await session.open()
        return session

    def _after(self, session: SmtpSession, *, in_step: bool) -> None:
        if not (in_step and session.usable):
            session.abort()
        elif session.messages >= self._limits.messages_per_connection:
            self._say_goodbye(session)
        else:
            self._keep(session)

    def _keep(self, session: SmtpSession) -> None:
        loop = asyncio.get_running_loop()
        self._idle[session] = loop.call_later(self._limits.idle_seconds, self._idle_too_long, session)

    def _idle_too_long(self, session: SmtpSession) -> None:
        del self._idle[session]
        self._say_goodbye(session)

    def _say_goodbye(self, session: SmtpSession) -> None:
        # In the background: no message should wait for a QUIT.
        task = asyncio.create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close the kept connections. Conversations still going on end by themselves or by cancellation."""
        while self._idle:
            session, timer = self._idle.popitem()
            timer.cancel()
            self._say_goodbye(session)
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_SECONDS)
