"""The worker's hold on its fork server: started, ordered about, replaced when it dies."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from ingestion_worker.isolation import linux
from ingestion_worker.isolation.wire import MOST_MESSAGE_BYTES, Ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from ingestion_worker.isolation.wire import ForkOrder

__all__ = ["ForkServerHandle", "ForkServerKeeper", "ServerStart", "certainly"]

T = TypeVar("T")
log = structlog.get_logger()

# In the environment of everything that a fork server starts, so that it can be found when the fork server is dead.
MARK = "INTELLIFLOW_ISOLATION"
START_SECONDS = 30.0
# A killed process that is not gone by then hangs in the kernel, or the fork server hangs.
BURIAL_SECONDS = 10.0
STOP_SECONDS = 3.0
PAUSES_SECONDS = (0.0, 0.1, 1.0, 5.0)
MOST_COMPLAINT_BYTES = 4096


class ServerStart(Exception):
    """The fork server does not start. The message says what it complained of."""


class ForkServerHandle:
    """One fork server, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket, mark: str) -> None:
        self._process = process
        self._line = line
        self._mark = mark
        self._loop = asyncio.get_running_loop()
        self._children: dict[int, asyncio.Future[Ended]] = {}
        self.ready: asyncio.Future[int] = self._loop.create_future()
        self.hung_up: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(line, self._hear)

    @property
    def pid(self) -> int:
        """Its process id; in a sandbox that of the sandbox."""
        return self._process.pid

    async def fork(self, order: ForkOrder, pipe: int) -> asyncio.Future[Ended]:
        """Order a child that writes to `pipe`; return what will be known once nothing is left of it."""
        message = order.message()
        ended = self._children[order.number] = self._loop.create_future()
        try:
            await self._send(message, pipe)
        except BaseException:
            del self._children[order.number]
            raise
        return ended

    async def kill(self, number: int) -> None:
        """Kill a child, and return when nothing is left of it."""
        ended = self._children.get(number)
        if ended is None:
            return
        await self._send(json.dumps({"kill": number}).encode())
        await asyncio.wait({ended}, timeout=BURIAL_SECONDS)
        if not ended.done():
            log.error("isolation_server_hangs", pid=self.pid)
            self._process.kill()
            await asyncio.wait({ended})

    async def outlive(self) -> int:
        """Wait until it has ended; see to it that nothing is left of it or its children; return its exit code."""
        await self.hung_up
        status = await self._ended()
        await asyncio.to_thread(bury_all, self._mark)
        for number in list(self._children):
            self._bury(Ended(number, status if status == -signal.SIGKILL else None))
        return status

    def hang_up(self) -> None:
        """Have it end, with all its children."""
        if not self.hung_up.done():
            self._loop.remove_reader(self._line)
            self._line.close()
            self.hung_up.set_result(None)

    async def complaint(self) -> str:
        """Return the end of what it wrote to its error stream."""
        assert self._process.stderr is not None  # noqa: S101  it was started with a pipe
        text = await self._process.stderr.read()
        return text[-MOST_COMPLAINT_BYTES:].decode(errors="replace").strip()

    async def _ended(self) -> int:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    async def _send(self, message: bytes, *pipes: int) -> None:
        """Send, waiting for room. That nobody is there any more will be heard elsewhere."""
        with suppress(OSError):
            while not self.hung_up.done():
                try:
                    socket.send_fds(self._line, [message], pipes)
                except BlockingIOError:
                    await self._room()
                else:
                    return

    async def _room(self) -> None:
        room: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._line, room.cancel)
        try:
            await asyncio.wait({room, self.hung_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not self.hung_up.done():
                self._loop.remove_writer(self._line)

    def _hear(self) -> None:
        try:
            message = self._line.recv(MOST_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message = b""
        match json.loads(message) if message else None:
            case {"ended": fields}:
                self._bury(Ended(**fields))
            case {"ready": size}:
                self.ready.set_result(size)
            case _:
                self.hang_up()

    def _bury(self, ended: Ended) -> None:
        child = self._children.pop(ended.number, None)
        if child and not child.done():
            child.set_result(ended)


async def start(command: Sequence[str], modules: Sequence[str], environment: Mapping[str, str]) -> ForkServerHandle:
    """Start a fork server. Raises `ServerStart`."""
    mark = secrets.token_hex(8)
    try:
        process, line = await spawned(command, modules, {**environment, MARK: mark})
    except OSError as error:
        raise ServerStart(f"{command[0]}: {error.strerror}") from error
    server = ForkServerHandle(process, line, mark)
    events: set[asyncio.Future[Any]] = {server.ready, server.hung_up}
    try:
        await asyncio.wait(events, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not server.ready.done():
            server.hang_up()
            await certainly(server.outlive())
    if not server.ready.done():
        raise ServerStart(await server.complaint() or f"it was not ready after {START_SECONDS:g} s")
    return server


async def spawned(
    command: Sequence[str], modules: Sequence[str], environment: Mapping[str, str]
) -> tuple[asyncio.subprocess.Process, socket.socket]:
    """Start the process; return it and the line to it. When that is closed, the process ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    with theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                *modules,
                env=environment,
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )
        except BaseException:
            ours.close()
            raise
    return process, ours


async def certainly(work: Coroutine[Any, Any, T]) -> T:
    """Do something to the end; a cancellation, or another, passes on after that."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled
    return task.result()


class ForkServerKeeper:
    """Has a fork server at hand, always the same until it dies."""

    def __init__(self, command: Sequence[str], modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command, self._modules, self._environment = command, modules, environment
        self._server: asyncio.Future[ForkServerHandle] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def keeping(self, on_restart: Callable[[], None]) -> AsyncIterator[None]:
        """Keep one running for the length of the block. Raises `ServerStart` when even the first does not start."""
        self._server.set_result(await self._start())
        keeper = asyncio.create_task(self._replace_the_dead(on_restart), name="fork server")
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
            if self._server.done():
                self._server.result().hang_up()
                await certainly(self._server.result().outlive())

    async def server(self) -> ForkServerHandle:
        """Return the one that runs, once there is one."""
        return await asyncio.shield(self._server)

    async def _start(self) -> ForkServerHandle:
        return await start(self._command, self._modules, self._environment)

    async def _replace_the_dead(self, on_restart: Callable[[], None]) -> None:
        while True:
            server = await self.server()
            await asyncio.wait({server.hung_up})
            self._server = asyncio.get_running_loop().create_future()
            status = await certainly(server.outlive())
            log.error("isolation_server_died", status=status)
            on_restart()
            self._server.set_result(await self._started_again())

    async def _started_again(self) -> ForkServerHandle:
        attempt = 0
        while True:
            await asyncio.sleep(PAUSES_SECONDS[min(attempt, len(PAUSES_SECONDS) - 1)])
            attempt += 1
            try:
                return await self._start()
            except ServerStart as error:
                log.error("isolation_server_does_not_start", attempt=attempt, reason=str(error))  # noqa: TRY400


def bury_all(mark: str) -> None:
    """Kill every process that a fork server has left behind."""
    sign = f"{MARK}={mark}".encode()
    give_up_at = time.monotonic() + BURIAL_SECONDS
    while time.monotonic() < give_up_at:
        marked = [pid for pid in linux.processes() if bears(pid, sign)]
        if not marked:
            break
        for pid in marked:
            bury(pid, sign)


def bears(pid: int, sign: bytes) -> bool:
    """Tell whether a living process was started with that variable."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:  # noqa: PTH123  of hundreds of processes
            return sign in environment.read().split(b"\0")
    except OSError:
        return False


def bury(pid: int, sign: bytes) -> None:
    """Kill a process if it is still the one that bears the sign, and wait for it if it has become our child."""
    with suppress(OSError):
        held = os.pidfd_open(pid)
        try:
            if bears(pid, sign):
                signal.pidfd_send_signal(held, signal.SIGKILL)
                os.waitid(os.P_PIDFD, held, os.WEXITED)
        finally:
            os.close(held)
