"""The base of every worker: the order of its life, and nothing else.

class NotificationsWorker(Worker[NotificationsSettings]):
    name = "notifications-worker"
    settings_type = NotificationsSettings
    queue_keys = ("EMAIL",)

    @asynccontextmanager
    async def on_start(self, runtime):
        async with open_relay(runtime.settings) as relay:
            yield [runtime.consumer("EMAIL", Notification, relay.deliver)]
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, NoReturn

import structlog

from worker_runtime.command_line import run_command
from worker_runtime.crew import Crew, Room, describe
from worker_runtime.ending import FAILED, Ending, ProcessOrders, bad_configuration
from worker_runtime.health import HealthPortUnavailable
from worker_runtime.runtime import Runtime, S
from worker_runtime.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    from worker_runtime.ending import StopOrders
    from worker_runtime.loops import Loop

log = structlog.get_logger()


class Worker(ABC, Generic[S]):
    """Subclasses say what they are called, what they read and which loops they run."""

    name: ClassVar[str]
    settings_type: type[S]
    queue_keys: ClassVar[tuple[str, ...]] = ()
    # Whether it can do nothing without: then its start waits for Redis, and its readiness is Redis'.
    needs_redis: ClassVar[bool] = True

    @abstractmethod
    def on_start(self, runtime: Runtime[S]) -> AbstractAsyncContextManager[Sequence[Loop]]:
        """Open resources in order, yield the loops, close in reverse: the one teardown path.

        Entered once Redis answers, if it is needed. May raise to refuse the start; is cancelled when the start is.
        Closing gets 2 s.
        """

    @classmethod
    def main(cls) -> NoReturn:
        """Be the process: `<process> [check | probe | --drain]`. Never returns."""
        run_command(cls, sys.argv[1:])

    async def live(self, settings: S, *, until_drained: bool = False) -> Ending:
        """Be a process of its own: start, work, stop; return how the process is to end."""
        runtime = self.runtime(settings)
        orders = ProcessOrders(settings.shutdown_timeout_ms / 1000, runtime.announce_draining)
        try:
            async with runtime.serving_health():
                await self.obey(orders, runtime, until_drained=until_drained)
        except HealthPortUnavailable as error:
            orders.give(Ending(FAILED, str(error)))
        return orders.ending

    def runtime(self, settings: S) -> Runtime[S]:
        """Return what one life of this worker is made of."""
        return Runtime(self.name, settings, self.queue_keys, needs_redis=self.needs_redis)

    async def obey(self, orders: StopOrders, runtime: Runtime[S], *, until_drained: bool = False) -> None:
        """Start, work, stop; `orders` know afterwards why. Nothing of the process is touched, but its event loop."""
        async with runtime.connected(), runtime.watched(orders):
            room = Room(self.on_start(runtime))
            loops = await start(runtime, room, orders)
            if not orders.asked.is_set():
                await work(runtime, loops, orders, until_drained=until_drained)
            if failure := await room.leave():
                orders.give(failure)


async def start(runtime: Runtime[S], room: Room, orders: StopOrders) -> Sequence[Loop]:
    """Wait for what is required and open the room; when that fails or is stopped, `orders` know why."""
    limit_ms = runtime.settings.start_timeout_ms
    opening = asyncio.create_task(open_room(runtime, room), name="start")
    stopped = asyncio.ensure_future(orders.asked.wait())
    await asyncio.wait({opening, stopped}, timeout=limit_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not opening.done():
        opening.cancel()
        if not orders.asked.is_set():
            orders.give(Ending(FAILED, f"{runtime.dependencies.excuse()} (START_TIMEOUT_MS={limit_ms})"))
        return ()
    if isinstance(error := opening.exception(), SettingsError):
        orders.give(bad_configuration(error.problems))
        return ()
    if error:
        log.error("start_failed", exc_info=error)
        orders.give(Ending(FAILED, f"the start failed: {describe(error)}"))
        return ()
    return opening.result()


async def open_room(runtime: Runtime[S], room: Room) -> Sequence[Loop]:
    """Redis first, then the worker's own resources, then whatever else they require."""
    await runtime.dependencies.wait_for_all()
    loops = await room.enter()
    await runtime.dependencies.wait_for_all()
    await runtime.breakers.restart()
    return loops


async def work(runtime: Runtime[S], loops: Sequence[Loop], orders: StopOrders, *, until_drained: bool) -> None:
    """Run the loops until there is a reason to stop, then let them drain."""
    crew = Crew(loops, orders, runtime.health, runtime.metrics)
    crew.start()
    await until_asked(orders, crew.first_turn())
    if not orders.asked.is_set():
        runtime.health.enter("running")
        log.info("worker_ready", loops=[loop.name for loop in loops])
    if until_drained:
        await until_asked(orders, crew.drained())
        if not orders.asked.is_set():
            orders.give(Ending(0, "--drain: nothing is left to do"))
    await orders.asked.wait()
    await crew.finish()
    if crew.handed_back:
        limit_ms = runtime.settings.shutdown_timeout_ms
        reason = f"drain deadline exceeded (SHUTDOWN_TIMEOUT_MS={limit_ms}): {crew.handed_back} jobs handed back"
        orders.give(Ending(FAILED, reason))


async def until_asked(orders: StopOrders, something: Coroutine[None, None, None]) -> None:
    """Wait for something, or for the first reason to stop."""
    waits = {asyncio.ensure_future(orders.asked.wait()), asyncio.ensure_future(something)}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
