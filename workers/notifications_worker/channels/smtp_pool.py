"""Connections to one mail server, kept and reused: few enough for the server, fresh enough to be alive."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from notifications_worker.channels.smtp_replies import SmtpFailure
from notifications_worker.channels.smtp_session import SmtpSession

if TYPE_CHECKING:
    from notifications_worker.channels.smtp_session import Envelope, Relay

__all__ = ["PoolLimits", "SmtpPool"]

# A server that ignores QUIT must not keep the process.
CLOSE_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Nodemailer's defaults, which relays are used to; `idle_seconds` is below what servers allow (30 to 300 s)."""

    connections: int = 5
    messages_per_connection: int = 100
    idle_seconds: float = 25.0


class SmtpPool:
    """At most `connections` conversations at once; callers beyond that wait for one to end, in order."""

    def __init__(self, relay: Relay, limits: PoolLimits | None = None) -> None:
        self._relay = relay
        self._limits = limits or PoolLimits()
        self._slots = asyncio.Semaphore(self._limits.connections)
        self._idle: dict[SmtpSession, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def transmit(self, envelope: Envelope) -> str:
        """Send one message over a connection that works and return the server's acceptance text. Raises SmtpFailure."""
        async with self._slots:
            session = await self._kept() or await self._opened()
            try:
                accepted = await session.transmit(envelope)
            except SmtpFailure as failure:
                self._after(session, in_step=failure.fault is None)
                raise
            except BaseException:
                session.abort()  # Cancelled in mid-sentence: the next reply would answer the wrong command.
                raise
            self._after(session, in_step=True)
            return accepted

    async def _kept(self) -> SmtpSession | None:
        """Return a kept connection that answers; those the server closed meanwhile are dropped at nobody's cost."""
        while self._idle:
            session, timer = self._idle.popitem()
            timer.cancel()
            if await self._answers(session):
                return session
        return None

    async def _answers(self, session: SmtpSession) -> bool:
        try:
            return session.usable and await session.still_works()
        except BaseException:
            session.abort()
            raise

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
