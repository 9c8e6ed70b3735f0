"""`intelliflow outbox discard`: what waits for a dead event goes on without it, and its row says who decided that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events_worker.dead_letters import DISCARDED
from events_worker.store.dead_letters import MOST_AT_ONCE
from worker_ops.arguments import add_author
from worker_ops.outbox.opened import Outbox, run_with_outbox
from worker_ops.outbox.selecting import (
    add_filters,
    add_ids,
    edit_of,
    planned,
    refuse_everything,
    selection_of,
    write_outcomes,
    write_total,
)
from worker_ops.output import add_output, say
from worker_ops.servers import interruptible

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.exit_codes import ExitCode


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("discard", help="give dead events up, and let what waits for them go on")
    add_ids(parser)
    add_filters(parser)
    add_author(parser, reason_needed=True)
    add_output(parser)
    parser.set_defaults(command=run_with_outbox(_discard), verb="discard")


async def _discard(asked: argparse.Namespace, outbox: Outbox) -> ExitCode:
    refuse_everything(asked)
    plan = await planned(outbox.dead_letters, asked)
    if not plan.count:
        return write_total(0, DISCARDED, 0, asked.output, interrupted=False)
    if asked.event_ids:
        return await _discard_named(asked, outbox)
    changed = 0
    with interruptible() as stop:
        async for discarded in outbox.dead_letters.discard_all(selection_of(asked), edit_of(asked), stop=stop):
            changed += discarded
            say(f"{changed} of {plan.count}")
        return write_total(plan.count, DISCARDED, changed, asked.output, interrupted=stop.requested.is_set())


async def _discard_named(asked: argparse.Namespace, outbox: Outbox) -> ExitCode:
    outcomes: dict[str, str] = {}
    for start in range(0, len(asked.event_ids), MOST_AT_ONCE):
        outcomes |= await outbox.dead_letters.discard(asked.event_ids[start : start + MOST_AT_ONCE], edit_of(asked))
    return write_outcomes(outcomes, DISCARDED, asked.output)
