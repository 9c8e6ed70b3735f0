"""A worker within another process: what it leaves alone, how it begins again, and how it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from engine_harness import until
from worker_runtime.embedding import embedded
from worker_runtime.loops import Heartbeat
from worker_runtime.postgres import Database, SchemaOutdated
from worker_runtime.settings import WorkerSettings
from worker_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from embedded_stack import PostgresServer
    from worker_runtime.embedding import EmbeddedWorker
    from worker_runtime.loops import Loop, StopSignal
    from worker_runtime.runtime import Runtime

QUICK = (0.05,)


class Turning:
    """A loop that turns until it is told to break, and then lets go of what it has in hand."""

    name = "turning"

    def __init__(self, said: list[str], drain_seconds: float) -> None:
        self.heartbeat = Heartbeat()
        self.breaks = asyncio.Event()
        self.handed_back = 0
        self._said = said
        self._drain_seconds = drain_seconds

    async def run(self, stop: StopSignal) -> None:
        self._said.append("began")
        while not stop.requested.is_set():
            if self.breaks.is_set():
                raise ValueError("it broke")
            await stop.sleep(0.01)
            self.heartbeat.beat()
        draining = asyncio.ensure_future(asyncio.sleep(self._drain_seconds))
        deadline = asyncio.ensure_future(stop.deadline())
        await asyncio.wait({draining, deadline}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            self.handed_back = 1
        self._said.append("drained" if draining.done() else "handed back")
        draining.cancel()
        deadline.cancel()


class Guest(Worker[WorkerSettings]):
    name: ClassVar[str] = "guest"
    settings_type = WorkerSettings
    needs_redis: ClassVar[bool] = False
    said: ClassVar[list[str]]
    loops: ClassVar[list[Turning]]
    drain_seconds: ClassVar[float] = 0.0
    database_url: ClassVar[str | None] = None
    refusals: ClassVar[int] = 0

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[WorkerSettings]) -> AsyncIterator[Sequence[Loop]]:
        if self.refusals > 0:
            type(self).refusals -= 1
            raise SchemaOutdated("run the migrations")
        self.loops.append(Turning(self.said, self.drain_seconds))
        self.said.append("opened")
        try:
            if self.database_url is None:
                yield [self.loops[-1]]
                return
            async with Database(self.database_url) as database:
                runtime.require("postgres", database.ping, where=database.where)
                await runtime.wait_for("postgres")
                yield [self.loops[-1]]
        finally:
            self.said.append("closed")


@pytest.fixture
def guest() -> type[Guest]:
    """A class of the test's own, for what it notes is on the class."""

    class Own(Guest):
        said: ClassVar[list[str]] = []
        loops: ClassVar[list[Turning]] = []

    return Own


def settings(**changes: Any) -> WorkerSettings:
    return WorkerSettings(**{"shutdown_timeout_ms": 500, "start_timeout_ms": 60_000, "redis_port": 1, **changes})


async def until_ready(one: EmbeddedWorker[Any], *, ready: bool = True, within: float = 10.0) -> None:
    async def as_asked() -> bool:
        return (one.unready_because is None) is ready

    await until(as_asked, within)


def own_threads() -> set[str]:
    """Those beside the event loop's, which looks up names in them."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def test_it_works_beside_the_block_and_leaves_the_process_alone(guest: type[Guest]) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    threads = own_threads()
    async with embedded(guest, settings()) as one:
        assert one.unready_because == "the guest is starting"
        await until_ready(one)
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
        assert own_threads() - threads == {"loop guard"}
        assert b'intelliflow_loop_tick_age_seconds{loop="turning",worker="guest"}' in one.runtime.metrics.scrape()
    assert guest.said == ["opened", "began", "drained", "closed"]
    assert own_threads() == threads
    assert one.unready_because == "the guest is draining"


async def test_a_crashed_loop_begins_again_and_says_why_meanwhile(
    guest: type[Guest], capsys: pytest.CaptureFixture[str]
) -> None:
    async with embedded(guest, settings(), pauses_seconds=(0.3,)) as one:
        for _ in range(2):
            await until_ready(one)
            guest.loops[-1].breaks.set()
            await until_ready(one, ready=False)

            async def told() -> bool:
                return "failed" in (one.unready_because or "")

            await until(told)
            assert one.unready_because == (
                "the guest failed and begins again: loop turning crashed: ValueError: it broke"
            )
        await until_ready(one)
    assert guest.said == ["opened", "began", "closed"] * 2 + ["opened", "began", "drained", "closed"]
    assert capsys.readouterr().out.count("embedded_worker_failed") == 2


async def test_it_pauses_longer_after_each_failure_and_anew_after_a_steady_life(
    guest: type[Guest], capsys: pytest.CaptureFixture[str]
) -> None:
    guest.refusals = 3
    async with embedded(guest, settings(), pauses_seconds=(0.01, 0.02, 0.04), steady_seconds=0.2) as one:
        await until_ready(one)
        await asyncio.sleep(0.3)  # So long it lives.
        guest.loops[-1].breaks.set()
        await until_ready(one, ready=False)
        await until_ready(one)
    pauses = [
        line.split("againInSeconds=")[1].split()[0]
        for line in capsys.readouterr().out.splitlines()
        if "againIn" in line
    ]
    assert pauses == ["0.01", "0.02", "0.04", "0.01"]


async def test_a_database_that_is_away_past_the_start_s_limit_is_waited_for_again(
    guest: type[Guest], own_postgres: PostgresServer
) -> None:
    own_postgres.stop()
    guest.database_url = own_postgres.url
    async with embedded(guest, settings(start_timeout_ms=600), pauses_seconds=QUICK) as one:
        assert one.unready_because == "the guest is starting"

        async def failed_twice() -> bool:
            return guest.said.count("opened") >= 3

        await until(failed_twice)
        assert "START_TIMEOUT_MS=600" in (one.unready_because or "")
        own_postgres.start()
        await until_ready(one)
        own_postgres.stop()
        await until_ready(one, ready=False)
        assert one.unready_because == "postgres does not answer"
        own_postgres.start()
        await until_ready(one)
    assert guest.said.count("opened") == guest.said.count("closed")


async def test_leaving_while_it_waits_for_its_start_is_quick(guest: type[Guest]) -> None:
    guest.database_url = "postgresql://nobody@127.0.0.1:1/nothing"
    async with asyncio.timeout(10), embedded(guest, settings(shutdown_timeout_ms=60_000)) as one:

        async def waits() -> bool:
            return one.unready_because == "the guest waits for postgres"

        await until(waits)
    assert guest.said == ["opened", "closed"]


async def test_leaving_while_it_pauses_is_quick(guest: type[Guest]) -> None:
    guest.refusals = 1
    async with asyncio.timeout(10), embedded(guest, settings(), pauses_seconds=(60.0,)) as one:

        async def pauses() -> bool:
            return "SchemaOutdated: run the migrations" in (one.unready_because or "")

        await until(pauses)
    assert guest.said == []


@pytest.mark.parametrize(("drain_seconds", "end"), [(0.2, "drained"), (30.0, "handed back")])
async def test_what_is_in_hand_has_the_grace(guest: type[Guest], drain_seconds: float, end: str) -> None:
    guest.drain_seconds = drain_seconds
    async with asyncio.timeout(10), embedded(guest, settings()) as one:
        await until_ready(one)
    assert guest.said == ["opened", "began", end, "closed"]


async def test_what_the_block_raises_passes_after_the_drain(guest: type[Guest]) -> None:
    async def block() -> None:
        async with embedded(guest, settings()) as one:
            await until_ready(one)
            raise KeyError

    with pytest.raises(KeyError):
        await block()
    assert guest.said[-2:] == ["drained", "closed"]


def test_nobody_is_left_who_would_end_the_process(guest: type[Guest], monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs in a loop is left behind; the last resort is the process' own business."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)

    class Stubborn(guest):  # type: ignore[valid-type,misc]
        @asynccontextmanager
        async def on_start(self, runtime: Runtime[WorkerSettings]) -> AsyncIterator[Sequence[Loop]]:
            async with Guest.on_start(self, runtime) as loops:
                loops[0].run = stubborn  # type: ignore[method-assign]
                yield loops

    async def stubborn(stop: StopSignal) -> None:
        while True:
            try:
                guest.loops[-1].heartbeat.beat()
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                if len(guest.said) > 100:
                    raise
                guest.said.append("no")

    async def block() -> None:
        async with embedded(Stubborn, settings(shutdown_timeout_ms=100)) as one:
            await until_ready(one)
        guest.said.extend(["enough"] * 101)

    asyncio.run(block())
    assert ended == []
