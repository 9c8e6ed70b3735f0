"""`intelliflow outbox dead`: what waits for a person, one by one or by what it died of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events_worker.store import DeadLetterStore
from worker_ops.arguments import positive
from worker_ops.exit_codes import ExitCode
from worker_ops.outbox.opened import Outbox, run_with_outbox
from worker_ops.outbox.selecting import add_filters, add_ids, group_rows, selection_of
from worker_ops.output import add_output, say, write_rows
from worker_runtime.health_board import timestamp

if TYPE_CHECKING:
    import argparse

    from events_worker.store.dead_letters import DeadLetter
    from worker_ops.arguments import Commands
    from worker_ops.output import Row

SHOWN = 100


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("dead", help="list dead letters, or group them by what they died of")
    add_ids(parser)
    add_filters(parser)
    parser.add_argument("--group", action="store_true", help="count them by error code and event type")
    parser.add_argument("--limit", type=positive, default=SHOWN, help="list at most so many (default: %(default)s)")
    add_output(parser)
    parser.set_defaults(command=run_with_outbox(dead))


async def dead(asked: argparse.Namespace, outbox: Outbox) -> ExitCode:
    """List or group."""
    selection = selection_of(asked)
    if asked.group:
        write_rows(group_rows(await outbox.dead_letters.plan(selection)), asked.output)
        return ExitCode.OK
    store = DeadLetterStore(outbox.database)
    found = await store.find(selection, asked.limit)
    write_rows([_row(letter) for letter in found], asked.output)
    if len(found) == asked.limit and (more := await store.count(selection) - len(found)) > 0:
        say(f"and {more} more: --limit shows them, --group counts them")
    return ExitCode.OK


def _row(letter: DeadLetter) -> Row:
    return {
        "eventId": letter.id,
        "type": letter.event_type,
        "aggregate": f"{letter.aggregate_type}:{letter.aggregate_id}",
        "deadSince": timestamp(letter.died_at.timestamp()),
        "retries": letter.retry_count,
        "blocks": letter.blocks,
        "archived": letter.archived,
        "error": letter.error,
    }
