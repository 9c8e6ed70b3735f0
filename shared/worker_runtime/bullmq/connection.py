"""One socket to Redis that many coroutines share.

redis-py writes once per command and takes a pooled connection for each; here every command of a loop turn leaves in
one write, and a write goes out every few commands so that Redis works while Python is still packing. Answers are
bytes: a job whose body is not UTF-8 must become a dead letter, not kill the reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import hiredis
import structlog
from redis.asyncio.connection import SSLConnection, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = structlog.get_logger()

Argument = bytes | str | int | float
WRITE_EVERY = 8
FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 1.0
LOG_WAITING_EVERY_SECONDS = 5.0
# Answers of a server that cannot serve now and will later: loading, a replica, full, or a cluster in motion.
NOT_NOW = ("LOADING", "READONLY", "OOM", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF")


class RedisUnavailable(Exception):
    """Redis could not be asked: the command may or may not have run. Later it may go well."""


class RedisError(Exception):
    """Redis refused the command and will again: a bug, a wrong type, missing rights."""


class Script:
    """A Lua script, sent by its hash and whole only when the server does not know it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode()).hexdigest()  # noqa: S324  the name Redis gives it, no security


class RedisConnection:
    """A connection that repairs itself.

    `call` and `run_script` wait up to `timeout_seconds` for a connection and the same again for an answer, then raise
    `RedisUnavailable`. They may be awaited by any number of coroutines of the loop that opened it. `on_error` is called
    for each connection lost or refused and each command the server could not serve, at the moment it happens.
    """

    def __init__(
        self,
        url: str,
        *,
        client_name: str,
        timeout_seconds: float = 5.0,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        self._target = parse_url(url)
        self._client_name = client_name
        self._timeout = timeout_seconds
        self._on_error = on_error
        self._wire: _Wire | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.losses = 0

    @property
    def connected(self) -> bool:
        """Whether a command sent now would leave at once."""
        return self._wire is not None

    async def open(self) -> None:
        """Start connecting and return; commands wait for it."""
        self._keeper = asyncio.create_task(self._stay_connected(), name=f"redis {self._client_name}")

    async def close(self) -> None:
        """Drop the connection for good. Commands still waiting raise `RedisUnavailable`. May be called twice."""
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None

    async def call(self, *command: Argument) -> Any:
        """Send one command and return its answer (bytes, int, list or None)."""
        wire = self._wire or await self._wait_for_wire()
        return self._checked(await wire.send(command), wire)

    async def run_script(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
        """Run a Lua script; see `call`."""
        wire = self._wire or await self._wait_for_wire()
        answer = await wire.send(("EVALSHA", script.sha, len(keys), *keys, *args))
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT"):
            answer = await wire.send(("EVAL", script.source, len(keys), *keys, *args))
        return self._checked(answer, wire)

    async def _wait_for_wire(self) -> _Wire:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._ready.wait()
        if self._wire is None:
            raise RedisUnavailable(f"no connection to Redis at {self._address} within {self._timeout:g} s")
        return self._wire

    async def _stay_connected(self) -> None:
        backoff, quiet_until = FIRST_BACKOFF_SECONDS, 0.0
        while True:
            try:
                # Not wait_for: Python 3.11's forgets a cancellation that meets the end of what it waits for.
                async with asyncio.timeout(self._timeout):
                    wire = await self._connect()
            except (OSError, TimeoutError, RedisUnavailable, RedisError) as error:
                self._on_error()
                if time.monotonic() >= quiet_until:
                    quiet_until = time.monotonic() + LOG_WAITING_EVERY_SECONDS
                    log.warning("redis_unreachable", address=self._address, error=_sentence(error))
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
                continue
            backoff, quiet_until = FIRST_BACKOFF_SECONDS, 0.0
            await self._serve(wire)

    async def _serve(self, wire: _Wire) -> None:
        self._wire = wire
        self._ready.set()
        log.debug("redis_connected", address=self._address)
        try:
            await wire.watch(self._timeout)
        finally:
            self._wire = None
            self._ready.clear()
            wire.abort()
            await wire.lost
        self.losses += 1
        self._on_error()
        log.warning("redis_connection_lost", address=self._address, error=wire.why)

    async def _connect(self) -> _Wire:
        loop = asyncio.get_running_loop()
        host, port = self._target.get("host", "localhost"), self._target.get("port", 6379)
        secure = ssl.create_default_context() if self._target.get("connection_class") is SSLConnection else None
        _, wire = await loop.create_connection(_Wire, host, port, ssl=secure)
        try:
            await self._greet(wire)
        except BaseException:
            wire.abort()
            raise
        return wire

    async def _greet(self, wire: _Wire) -> None:
        if password := self._target.get("password"):
            self._checked(await wire.send(("AUTH", self._target.get("username") or "default", password)), wire)
        if database := self._target.get("db"):
            self._checked(await wire.send(("SELECT", database)), wire)
        self._checked(await wire.send(("CLIENT", "SETNAME", self._client_name)), wire)
        self._checked(await wire.send(("PING",)), wire)

    def _checked(self, answer: Any, wire: _Wire) -> Any:
        if not isinstance(answer, hiredis.ReplyError):
            return answer
        text = str(answer)
        if not text.startswith(NOT_NOW):
            raise RedisError(text)
        self._on_error()
        if text.startswith("READONLY"):
            # A demoted master: only a new connection can find the new one.
            wire.abort(text)
        raise RedisUnavailable(text)

    @property
    def _address(self) -> str:
        return f"{self._target.get('host', 'localhost')}:{self._target.get('port', 6379)}"


class _Wire(asyncio.Protocol):
    """A socket's life: commands out in batches, answers in the order of the commands."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._unsent: list[bytes] = []
        self._awaited: deque[asyncio.Future[Any]] = deque()
        self._last_progress = 0.0
        self.lost = self._loop.create_future()
        self.why = "closed by the server"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    _transport: asyncio.Transport

    def send(self, command: Sequence[Argument]) -> asyncio.Future[Any]:
        answer = self._loop.create_future()
        if self.lost.done():
            answer.set_exception(RedisUnavailable(f"connection to Redis lost: {self.why}"))
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
        if self._unsent and not self.lost.done():
            batch, self._unsent = self._unsent, []
            self._transport.write(b"".join(batch))

    def data_received(self, data: bytes) -> None:
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
        if exc is not None:
            self.why = _sentence(exc)
        if not self.lost.done():
            self.lost.set_result(None)
        error = RedisUnavailable(f"connection to Redis lost: {self.why}")
        while self._awaited:
            future = self._awaited.popleft()
            if not future.done():
                future.set_exception(error)

    def abort(self, why: str | None = None) -> None:
        if why:
            self.why = why
        self._transport.abort()

    async def watch(self, timeout_seconds: float) -> None:
        """Return when the connection is lost; cut it when the server owes an answer for too long."""
        while not self.lost.done():
            await asyncio.wait({self.lost}, timeout=timeout_seconds / 10)
            if self._awaited and time.monotonic() - self._last_progress > timeout_seconds:
                self.abort(f"no answer for {timeout_seconds:g} s")


def _sentence(error: BaseException) -> str:
    return str(error) or type(error).__name__
