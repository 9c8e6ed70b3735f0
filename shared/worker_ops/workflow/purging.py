"""`intelliflow workflow purge`: nothing of one organisation is left to do, and nobody else loses a message.

What `pgmq.purge_queue` cannot do: it empties the queue for everybody, and executions lose no more than their messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.arguments import add_author
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import command_over, interruptible
from worker_ops.workflow.cancelling import by_whom
from worker_ops.workflow.changing import Stores
from worker_ops.workflow.changing_store import QUEUES
from worker_ops.workflow.executions_store import UNFINISHED, Selection
from worker_ops.workflow.selecting import group_row

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from worker_ops.arguments import Commands
    from worker_runtime.loops import StopSignal

QUEUE, DEAD_LETTERS = QUEUES


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("purge", help="cancel all that an organisation has to do, and remove its messages only")
    parser.add_argument("organization", metavar="ORG")
    parser.add_argument("--dlq", action="store_true", help="remove its dead letters, too; those executions stay failed")
    add_author(parser, reason_needed=False)
    add_output(parser)
    parser.set_defaults(command=command_over(Stores, _purge))


async def _purge(asked: argparse.Namespace, stores: Stores) -> ExitCode:
    now = await stores.executions.now()
    selection = Selection(asked.organization, UNFINISHED, created_before=now)
    queues = QUEUES if asked.dlq else (QUEUE,)
    groups = await stores.executions.groups(selection)
    matched = sum(row["count"] for row in groups)
    held = {queue: await stores.changes.messages(queue, asked.organization, now) for queue in queues}
    if not asked.apply and (matched or any(held.values())):
        write_rows([group_row(row) for row in groups], asked.output)
        counts = ", ".join(f"{count} messages of {queue}" for queue, count in held.items())
        raise CommandFailed(
            ExitCode.REFUSED, f"this would cancel {matched} executions and remove {counts}; do it with --apply"
        )
    with interruptible() as stop:
        outcomes = await _applied(asked, stores, selection, queues, stop)
        write_rows([{"matched": matched, **outcomes}], asked.output)
        if stop.requested.is_set():
            say("stopped; the same command goes on where it stopped")
            return ExitCode.PARTIAL
    return ExitCode.OK


async def _applied(
    asked: argparse.Namespace, stores: Stores, selection: Selection, queues: Sequence[str], stop: StopSignal
) -> Mapping[str, int]:
    organization, until = asked.organization, selection.created_before
    assert until is not None  # noqa: S101  see the caller
    cancelled, reason = 0, by_whom("purged", asked)
    before = await _held(stores, queues, organization, until)
    async for page in stores.executions.pages(selection):
        cancelled += await stores.changes.purge(page, reason)
        say(f"{cancelled} cancelled")
        if stop.requested.is_set():
            break
    for queue in queues:
        # What is left of it: messages whose execution is over, and those that somebody sent by hand.
        async for _ in stores.changes.remove_messages(queue, organization, until):
            if stop.requested.is_set():
                break
    after = await _held(stores, queues, organization, until)
    removed = {"messagesRemoved": before[QUEUE] - after[QUEUE]}
    if DEAD_LETTERS in queues:
        removed["deadLettersRemoved"] = before[DEAD_LETTERS] - after[DEAD_LETTERS]
    return {"cancelled": cancelled, **removed}


async def _held(stores: Stores, queues: Sequence[str], organization: str, until: datetime) -> dict[str, int]:
    return {queue: await stores.changes.messages(queue, organization, until) for queue in queues}
