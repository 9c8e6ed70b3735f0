"""`intelliflow workflow cancel`: executions end without going on, and what they have started ends with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.arguments import add_author
from worker_ops.output import add_output
from worker_ops.servers import command_over
from worker_ops.workflow.changing import Stores, change_described, change_named, refuse_everything
from worker_ops.workflow.executions_store import UNFINISHED
from worker_ops.workflow.selecting import add_filters, add_ids, selection_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from worker_ops.arguments import Commands
    from worker_ops.exit_codes import ExitCode

CANCELLED, ASKED = "cancelled", "ends at its next step"


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("cancel", help="end executions; one that is at work ends before its next step")
    add_ids(parser)
    add_filters(parser, UNFINISHED)
    add_author(parser, reason_needed=False)
    add_output(parser)
    parser.set_defaults(command=command_over(Stores, _cancel))


async def _cancel(asked: argparse.Namespace, stores: Stores) -> ExitCode:
    async def cancel(executions: Sequence[UUID]) -> Mapping[UUID, str]:
        ended = await stores.changes.cancel(executions, by_whom("cancelled", asked))
        return dict.fromkeys(ended.cancelled, CANCELLED) | dict.fromkeys(ended.asked, ASKED)

    refuse_everything(asked)
    if asked.execution_ids:
        return await change_named(asked, stores, UNFINISHED, cancel, "cancel")
    return await change_described(asked, stores, selection_of(asked, UNFINISHED), cancel, "cancel")


def by_whom(what: str, asked: argparse.Namespace) -> str:
    """Say who did it and why, as the execution keeps it."""
    return f"{what} by {asked.by}" + (f": {asked.reason}" if asked.reason else "")
