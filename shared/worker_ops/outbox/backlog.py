"""`intelliflow outbox backlog`: does it shrink, when will it be gone, and what holds it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from worker_ops.arguments import positive
from worker_ops.exit_codes import ExitCode
from worker_ops.outbox.opened import Outbox, run_with_outbox
from worker_ops.output import add_output, say, write_rows

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from worker_ops.arguments import Commands
    from worker_ops.outbox.store import Flow
    from worker_ops.output import Row
    from worker_runtime.bullmq.producer import QueueCounts

MEASURED_SECONDS = 3
FEW = 100


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("backlog", help="measure whether the backlog shrinks, and say what holds it up")
    parser.add_argument(
        "--seconds", type=positive, default=MEASURED_SECONDS, help="how long to measure (default: %(default)s)"
    )
    add_output(parser)
    parser.set_defaults(command=run_with_outbox(_backlog))


async def _backlog(asked: argparse.Namespace, outbox: Outbox) -> ExitCode:
    before = await outbox.view.flow()
    await asyncio.sleep(asked.seconds)
    after = await outbox.view.flow()
    behind_dead, put_off = await outbox.view.held_up()
    counts, owners = await outbox.queue.counts(), await outbox.view.partitions()
    row = forecast(before, after) | {
        "behindDeadLetters": behind_dead,
        "putOff": put_off,
        "waitingJobs": counts.depth,
        "activeJobs": counts.active,
    }
    write_rows([row], asked.output)
    ownerless = sum(partition["owner"] is None for partition in owners)
    for sentence in advice(row, counts, ownerless):
        say(sentence)
    return ExitCode.OK


def forecast(before: Flow, after: Flow) -> Row:
    """Say from two looks how fast events come and go, and when none will be left."""
    seconds = max(0.001, after.now - before.now)
    coming = max(0.0, (after.given - before.given) / seconds)
    going = max(0.0, coming - (after.pending - before.pending) / seconds)
    shrinking = going - coming
    return {
        "pending": after.pending,
        "comingPerSecond": round(coming, 1),
        "goingPerSecond": round(going, 1),
        "emptyInSeconds": round(after.pending / shrinking) if shrinking > 0 else None if after.pending else 0,
    }


def advice(row: Row, counts: QueueCounts, ownerless: int) -> Iterator[str]:
    """Yield a sentence for each thing that holds the events up."""
    if row["pending"] <= FEW:
        return
    if ownerless:
        yield f"{ownerless} partitions have no owner: start an events-worker"
    if counts.paused:
        yield "the queue is paused: nothing is handled until it is resumed"
    elif row["waitingJobs"] > row["activeJobs"] > 0:
        yield "the handlers are the bottleneck: add events-workers, or look for slow handlers"
    if row["behindDeadLetters"]:
        yield f"{row['behindDeadLetters']} wait for a person: `intelliflow outbox dead` shows whom they wait for"
    if row["emptyInSeconds"] is None and not row["goingPerSecond"] and not ownerless:
        yield "nothing goes: look at `intelliflow doctor` and at the relay's log (outbox_relay_waits, _holds_back)"
