"""Handlers that tell what they do, loaded into real workers by EVENT_HANDLERS=chaos.watched.

An event's payload says how it goes: how long the work takes (`seconds`, or by handler: `lasts`), whether it is
`poison`, and what becomes of it in a worker that is doomed to crash (`doomed`: seconds for each handler, -1 for a
failure). Beside that, anything may fail. Dead letters of `STRICT` block their aggregate, whatever the contracts say.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import events_worker.worker
from chaos.crash_points import lay_out
from chaos.events import STRICT
from chaos.history import Pen
from events_worker.contracts import load_contracts
from events_worker.handlers import on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from events_worker.contracts import Contracts
    from events_worker.handlers import EventJob, HandlerContext

LINE = "INSERT INTO ledger (event, aggregate, version) VALUES ($1, $2, $3)"

pen = Pen(Path(os.environ["CHAOS_HISTORY"]))
chance = Random()
doomed = "CHAOS_CRASH_AT" in os.environ
mishaps = float(os.environ.get("CHAOS_MISHAPS", "0.05"))


class Mishap(Exception):
    """The handler's own failure, which costs its event an attempt."""


@on("chaos.*")
async def first(event: EventJob, context: HandlerContext) -> None:
    """Have an effect that nothing can take back."""
    await act("first", event)


@on("chaos.*")
async def second(event: EventJob, context: HandlerContext) -> None:
    """Have another one beside it; poison is its death."""
    await act("second", event, poisoned=bool(event.payload.get("poison")))


@on("chaos.*")
async def ledger(event: EventJob, context: HandlerContext) -> None:
    """Write a line in the transaction that the receipt is written in."""
    with telling("ledger", event):
        async with context.transaction() as connection:
            line = (UUID(event.event_id), event.aggregate_id, event.payload["version"])
            await connection.execute(LINE, *line)
            await work("ledger", event)
            fail_sometimes()


async def act(handler: str, event: EventJob, *, poisoned: bool = False) -> None:
    """Work, have the effect, and take a moment to say so: the moment in which a kill makes it happen twice."""
    with telling(handler, event) as run:
        await work(handler, event)
        fail_sometimes(poisoned=poisoned)
        pen.tell("effect", event=event.event_id, aggregate=event.aggregate_id, handler=handler, run=run)
        await asyncio.sleep(chance.uniform(0, 0.003))


async def work(handler: str, event: EventJob) -> None:
    """Take as long as the event says, and fail if it says so."""
    doom = event.payload.get("doomed", {}).get(handler, 0) if doomed else 0
    if doom < 0:
        raise Mishap
    await asyncio.sleep(event.payload.get("seconds", 0) + event.payload.get("lasts", {}).get(handler, 0) + doom)


def fail_sometimes(*, poisoned: bool = False) -> None:
    """Fail at random, and always when poisoned."""
    if poisoned or chance.random() < mishaps:
        raise Mishap


@contextmanager
def telling(handler: str, event: EventJob) -> Iterator[str]:
    """Tell when a run begins and how it ends."""
    run = uuid4().hex
    who: dict[str, Any] = {"event": event.event_id, "aggregate": event.aggregate_id, "handler": handler, "run": run}
    pen.tell("begun", version=event.payload["version"], **who)
    try:
        yield run
    except asyncio.CancelledError:
        pen.tell("aborted", **who)
        raise
    except Mishap:
        pen.tell("failed", **who)
        raise
    except Exception as error:
        pen.tell("put off", note=type(error).__name__, **who)
        raise
    pen.tell("done", **who)


def stricter() -> Contracts:
    """Read the shipped contracts and add a type that blocks."""
    contracts = load_contracts()
    contracts._blocking.add(STRICT)
    return contracts


# This module is imported with the settings, before the worker reads its contracts.
events_worker.worker.load_contracts = stricter  # type: ignore[attr-defined,assignment]
lay_out()
