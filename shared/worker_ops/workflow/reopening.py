"""`intelliflow workflow retry`: executions that have failed go on where they stood, with attempts of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.output import add_output
from worker_ops.servers import command_over
from worker_ops.workflow.changing import Stores, change_described, change_named, refuse_everything
from worker_ops.workflow.selecting import add_filters, add_ids, selection_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from worker_ops.arguments import Commands
    from worker_ops.exit_codes import ExitCode

FAILED = ("failed",)
REOPENED = "reopened"


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("retry", help="open failed executions again: completed steps are not run again")
    add_ids(parser)
    add_filters(parser, FAILED)
    parser.add_argument("--apply", action="store_true", help="do it, instead of saying what would be done")
    add_output(parser)
    parser.set_defaults(command=command_over(Stores, _retry))


async def _retry(asked: argparse.Namespace, stores: Stores) -> ExitCode:
    async def reopen(executions: Sequence[UUID]) -> Mapping[UUID, str]:
        return dict.fromkeys(await stores.changes.reopen(executions), REOPENED)

    refuse_everything(asked)
    if asked.execution_ids:
        return await change_named(asked, stores, FAILED, reopen, "open again")
    return await change_described(asked, stores, selection_of(asked, FAILED), reopen, "open again")
