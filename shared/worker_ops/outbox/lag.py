"""`intelliflow outbox lag`: how far the relay is behind the writers, and the handlers behind the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events_worker.store import UpkeepStore
from worker_ops.exit_codes import ExitCode
from worker_ops.outbox.opened import Outbox, run_with_outbox
from worker_ops.output import add_output, write_rows

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.output import Row


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("lag", help="say how far behind the relay and the handlers are")
    parser.add_argument("--by-type", action="store_true", help="what is pending, by event type")
    add_output(parser)
    parser.set_defaults(command=run_with_outbox(_lag))


async def _lag(asked: argparse.Namespace, outbox: Outbox) -> ExitCode:
    write_rows(await (_by_type(outbox) if asked.by_type else _in_all(outbox)), asked.output)
    return ExitCode.OK


async def _in_all(outbox: Outbox) -> list[Row]:
    lag = await UpkeepStore(outbox.database).lag()
    counts = await outbox.queue.counts()
    return [
        {
            "pending": lag.pending,
            "oldestSeconds": round(lag.seconds, 1),
            "underWay": lag.under_way,
            "waitingJobs": counts.depth,
            "activeJobs": counts.active,
            "delayedJobs": counts.delayed,
            "blockedAggregates": lag.blocked,
            "deadLetters": lag.dead,
        }
    ]


async def _by_type(outbox: Outbox) -> list[Row]:
    return [
        {
            "type": row["event_type"],
            "pending": row["pending"],
            "oldestSeconds": round(max(0.0, row["seconds"] or 0.0), 1),
        }
        for row in await outbox.view.pending_by_type()
    ]
