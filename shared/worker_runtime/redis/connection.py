"""One socket to Redis that many coroutines share.

redis-py writes once per command and takes a pooled connection for each; here every command of a loop turn leaves in
one write, and a write goes out every few commands so that Redis works while Python is still packing. Answers are
bytes: a job whose body is not UTF-8 must become a dead letter, not kill the reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import time
from collections.abc import Sequence
from itertools import tee
from typing import TYPE_CHECKING, Any

import hiredis
import structlog

from worker_runtime.redis.address import RedisAddress, Server
from worker_runtime.redis.sentinels import Sentinels
from worker_runtime.redis.wire import (
    NOT_NOW,
    UNREACHABLE,
    Argument,
    RedisError,
    RedisUnavailable,
    Wire,
    connect,
    sentence,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

__all__ = [
    "PAUSE_AFTER_ERROR_SECONDS",
    "Argument",
    "RedisConnection",
    "RedisError",
    "RedisUnavailable",
    "Script",
    "ScriptCall",
]

log = structlog.get_logger()

FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 1.0
PAUSE_AFTER_DEMOTION_SECONDS = 0.25
# Before asking again what `RedisUnavailable` left unanswered.
PAUSE_AFTER_ERROR_SECONDS = 0.1
LOG_WAITING_EVERY_SECONDS = 5.0
# A demoted master, or one cut off from its replicas: only a new connection can find the new one.
MAYBE_DEMOTED = ("READONLY", "NOREPLICAS", "MASTERDOWN")


class Script:
    """A Lua script, sent by its hash and whole only when the server does not know it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode()).hexdigest()  # noqa: S324  the name Redis gives it, no security


# What to run, its keys and its arguments.
ScriptCall = tuple[Script, Sequence[Argument], Sequence[Argument]]


class RedisConnection:
    """A connection that repairs itself, to the server of that address or to the one its Sentinels call master.

    `call` and `run_script` wait up to `timeout_seconds` for a connection and the same again for an answer, then raise
    `RedisUnavailable`. They may be awaited by any number of coroutines of the loop that opened it. `on_error` is called
    for each connection lost or refused and each command the server could not serve, at the moment it happens.
    """

    def __init__(
        self,
        where: str | RedisAddress,
        *,
        client_name: str,
        timeout_seconds: float = 5.0,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        self._where = where if isinstance(where, RedisAddress) else RedisAddress(Server.from_url(where))
        # Redis refuses a name with a blank in it.
        self._client_name = "-".join(client_name.split())
        self._timeout = timeout_seconds
        self._on_error = on_error
        self._sentinels = Sentinels(self._where, self._leave)
        self._wire: Wire | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        # The server connected to now or last.
        self.server = self._where.server
        self.losses = 0
        # Why there is no connection; empty while there is one, and before the first answer.
        self.trouble = ""
        self._complained = ("", "")
        self._quiet_until = 0.0

    @property
    def connected(self) -> bool:
        """Whether a command sent now would leave at once."""
        return self._wire is not None

    @property
    def client_id(self) -> int:
        """How the server calls this connection, for `CLIENT UNBLOCK`; 0 while there is none."""
        return self._wire.client_id if self._wire else 0

    async def open(self) -> None:
        """Start connecting and return; commands wait for it."""
        self._ready.clear()
        self._sentinels.open()
        self._keeper = asyncio.create_task(self._stay_connected(), name=f"redis {self._client_name}")

    async def close(self) -> None:
        """Drop the connection for good. Commands still waiting raise `RedisUnavailable`. May be called twice."""
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
            await self._sentinels.close()
            # Those who wait for a connection learn that there will be none.
            self._ready.set()

    async def server_of(self, key: Argument) -> RedisConnection:  # noqa: ARG002  a cluster needs to know
        """Return the connection to the server that holds a key, for commands that name none; may wait, as `call`."""
        return self

    async def call(self, *command: Argument) -> Any:
        """Send one command and return its answer (bytes, int, list or None)."""
        wire = self._wire or await self._wait_for_wire()
        return self._checked(await wire.send(command), wire)

    async def call_asking(self, *command: Argument) -> Any:
        """Send one command about a key that is on its way to this server of a cluster; see `call`."""
        wire = self._wire or await self._wait_for_wire()
        _, answer = await asyncio.gather(wire.send(("ASKING",)), wire.send(command))
        return self._checked(answer, wire)

    async def run_script(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
        """Run a Lua script; see `call`."""
        wire = self._wire or await self._wait_for_wire()
        answer = await wire.send(("EVALSHA", script.sha, len(keys), *keys, *args))
        if is_unknown(answer):
            answer = await wire.send(("EVAL", script.source, len(keys), *keys, *args))
        return self._checked(answer, wire)

    async def run_scripts(self, calls: Iterable[ScriptCall]) -> list[Any]:
        """Run many, in order; see `call`. The first error is raised, though the others have run."""
        wire = self._wire or await self._wait_for_wire()
        calls, sent = tee(calls)
        answers = await asyncio.gather(
            *(wire.send(("EVALSHA", script.sha, len(keys), *keys, *args)) for script, keys, args in sent)
        )
        return [
            await self.run_script(*call) if is_unknown(answer) else self._checked(answer, wire)
            for call, answer in zip(calls, answers, strict=True)
        ]

    async def _wait_for_wire(self) -> Wire:
        await self._wait_until_ready()
        if self._wire is None:
            raise self._no_connection()
        return self._wire

    async def _wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._ready.wait()
        except TimeoutError:
            raise self._no_connection() from None
        if self._keeper is None:
            raise self._no_connection()

    def _no_connection(self) -> RedisUnavailable:
        within = f" within {self._timeout:g} s" if self._keeper else ": closed"
        because = f": {self.trouble}" if self.trouble else ""
        return RedisUnavailable(f"no connection to Redis at {self._address}{within}{because}")

    async def _stay_connected(self) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                # Not wait_for: Python 3.11's forgets a cancellation that meets the end of what it waits for.
                async with asyncio.timeout(self._timeout):
                    serve = await self._connect()
            except UNREACHABLE as error:
                self._on_error()
                self._complain("redis_unreachable", sentence(error))
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
                continue
            backoff = FIRST_BACKOFF_SECONDS
            await serve()

    def _complain(self, event: str, trouble: str) -> None:
        """Log what is wrong, but not again and again."""
        self.trouble = trouble
        # The rest of a sentence may differ by the script that was refused.
        kind, now = (event, trouble.partition(" ")[0]), time.monotonic()
        if kind != self._complained or now >= self._quiet_until:
            self._complained, self._quiet_until = kind, now + LOG_WAITING_EVERY_SECONDS
            log.warning(event, address=self._address, error=trouble)

    async def _connect(self) -> Callable[[], Awaitable[None]]:
        """Return what to await while the connection lasts; raises one of `UNREACHABLE`."""
        self.server = await self._find_server()
        wire, (wire_id, *_, last) = await connect(self.server, *self._greeting())
        wire.client_id = wire_id
        # A Sentinel may not know yet, and an old master that was away may not know itself, that another took over.
        if self._where.sentinels and (role := last[0]) != b"master":
            wire.abort()
            raise RedisUnavailable(f"{self.server} is a {role.decode()}, though a Sentinel calls it the master")
        return functools.partial(self._serve, wire)

    def _greeting(self) -> Iterator[tuple[Argument, ...]]:
        yield "CLIENT", "ID"
        yield "CLIENT", "SETNAME", self._client_name
        if self._where.server.database:
            yield "SELECT", self._where.server.database
        yield ("PING",)
        if self._where.sentinels:
            yield ("ROLE",)

    async def _find_server(self) -> Server:
        return await self._sentinels.find_master(self._timeout) if self._where.sentinels else self._where.server

    def _leave(self, replaced: Server) -> None:
        """Have nothing more to do with a master that Sentinels replace."""
        if self._wire is not None and self.server == replaced:
            self._wire.abort("a Sentinel makes another server the master")

    async def _serve(self, wire: Wire) -> None:
        self._wire, self.trouble = wire, ""
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
        self._complain("redis_connection_lost", wire.why)
        if wire.why.startswith(MAYBE_DEMOTED):
            # Nothing else may be there yet, and while Sentinels deliberate they still name the old master.
            await asyncio.sleep(PAUSE_AFTER_DEMOTION_SECONDS)

    def _checked(self, answer: Any, wire: Wire) -> Any:
        if not isinstance(answer, hiredis.ReplyError):
            return answer
        text = str(answer)
        if text.startswith(NOT_NOW):
            self._on_error()
        if text.startswith("READONLY") or (self._where.sentinels and text.startswith(MAYBE_DEMOTED)):
            wire.abort(text)
        return value_of(answer)

    @property
    def _address(self) -> str:
        return f"{self.server} ({self._where})" if self._where.sentinels else str(self._where)


def is_unknown(answer: Any) -> bool:
    """Whether the server has not heard of a script: it is new to it, or it was told to forget it."""
    return isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT")
