"""One socket to one Redis server: commands out in batches, answers in the order of the commands."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import hiredis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker_runtime.redis.address import Server

Argument = bytes | str | int | float
WRITE_EVERY = 8
# How long a Sentinel, or a server asked for the cluster's map, may take before the next one is asked.
GUIDE_SECONDS = 1.0
# Answers of a server that cannot serve now and will later: loading, a replica, full, or a cluster in motion.
NOT_NOW = ("LOADING", "READONLY", "OOM", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF")


class RedisUnavailable(Exception):
    """Redis could not be asked: the command may or may not have run. Later it may go well."""


class RedisError(Exception):
    """Redis refused the command and will again: a bug, a wrong type, missing rights."""


# What may go wrong between here and an answer; UnicodeError: a host name that cannot be one.
UNREACHABLE = (OSError, UnicodeError, RedisUnavailable, RedisError)


class Wire(asyncio.Protocol):
    """A socket's life. Many coroutines may send; each awaits the answer to its own command."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._unsent: list[bytes] = []
        self._awaited: deque[asyncio.Future[Any]] = deque()
        self._last_progress = 0.0
        self.lost = self._loop.create_future()
        self.why = "closed by the server"
        # By which another connection may end a blocking command on this one.
        self.client_id = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]

    _transport: asyncio.Transport

    def send(self, command: Sequence[Argument]) -> asyncio.Future[Any]:
        """Send a command; its answer is bytes, int, list, None or a `hiredis.ReplyError`."""
        answer = self._loop.create_future()
        if self.lost.done():
            # Not at once: whoever asks again and again must let others run, or nobody finds out and reconnects.
            self._loop.call_soon(self._fail, answer)
            return answer
        if not self._awaited:
            self._last_progress = time.monotonic()
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]
        self._awaited.append(answer)
        if len(self._unsent) >= WRITE_EVERY:
            self._flush()
        return answer

    def _flush(self) -> None:
        # A transport that has failed says so a turn later, and asyncio complains of each write until then.
        if self._unsent and not self._transport.is_closing():
            batch, self._unsent = self._unsent, []
            self._transport.write(b"".join(batch))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._last_progress = time.monotonic()
        reader, awaited = self._reader, self._awaited
        reader.feed(data)
        try:
            while (answer := reader.gets()) is not False:
                future = awaited.popleft()
                if not future.done():
                    future.set_result(answer)
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(f"not the Redis protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if exc is not None:
            self.why = sentence(exc)
        if not self.lost.done():
            self.lost.set_result(None)
        while self._awaited:
            self._fail(self._awaited.popleft())

    def _fail(self, answer: asyncio.Future[Any]) -> None:
        if not answer.done():
            answer.set_exception(RedisUnavailable(f"connection to Redis lost: {self.why}"))

    def abort(self, why: str | None = None) -> None:
        """Cut the connection without waiting for anything."""
        if why:
            self.why = why
        self._transport.abort()

    async def watch(self, timeout_seconds: float) -> None:
        """Return when the connection is lost; cut it when the server owes an answer for too long."""
        while not self.lost.done():
            await asyncio.wait({self.lost}, timeout=timeout_seconds / 10)
            if self._awaited and time.monotonic() - self._last_progress > timeout_seconds:
                self.abort(f"no answer for {timeout_seconds:g} s")


async def connect(
    server: Server, *greeting: Sequence[Argument], protocol: Callable[[], Wire] = Wire
) -> tuple[Wire, list[Any]]:
    """Open a connection, log in and say the greeting, all in one go; return the answers to the greeting too.

    Raises one of `UNREACHABLE`. Certificates are checked against the system's, or the file that OpenSSL finds in
    `SSL_CERT_FILE`.
    """
    secure = ssl.create_default_context() if server.tls else None
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(protocol, server.host, server.port, ssl=secure)
    login = [("AUTH", server.username or "default", server.password)] if server.username or server.password else []
    try:
        answers = await asyncio.gather(*(wire.send(command) for command in (*login, *greeting)))
        return wire, [value_of(answer) for answer in answers][len(login) :]
    except BaseException:
        wire.abort()
        raise


async def ask_any(servers: deque[Server], *command: Argument, timeout_seconds: float) -> tuple[Server, Any]:
    """Put one question to the servers in turn, each over a connection of its own, until one answers something.

    Return who answered what. Each gets a second, or a quarter of the timeout if that is less. Turns the servers, so
    that the next question begins with another one: an answer may be stale. Raises `RedisUnavailable` with what each
    of them said.
    """
    refusals = []
    for _ in range(len(servers)):
        server = servers[0]
        servers.rotate(-1)
        try:
            async with asyncio.timeout(min(GUIDE_SECONDS, timeout_seconds / 4)):
                answer = await _ask(server, command)
        except UNREACHABLE as error:
            refusals.append(f"{server}: {sentence(error)}")
            continue
        if answer is not None:
            return server, answer
        refusals.append(f"{server} knows nothing of it")
    raise RedisUnavailable("; ".join(refusals))


async def _ask(server: Server, command: Sequence[Argument]) -> Any:
    wire, (answer,) = await connect(server, command)
    wire.abort()
    return answer


def value_of(answer: Any) -> Any:
    """Return an answer that is none of error, else raise `RedisUnavailable` or `RedisError`."""
    if not isinstance(answer, hiredis.ReplyError):
        return answer
    text = str(answer)
    raise RedisUnavailable(text) if text.startswith(NOT_NOW) else RedisError(text)


def sentence(error: BaseException) -> str:
    """Say what went wrong, also for an error without words."""
    return str(error) or type(error).__name__
