"""`intelliflow workflow list`: executions one by one, or by what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.arguments import positive
from worker_ops.exit_codes import ExitCode
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import command_over
from worker_ops.workflow.executions_store import STATUSES, ExecutionsStore
from worker_ops.workflow.selecting import add_filters, execution_row, group_row, selection_of

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands

SHOWN = 100


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("list", help="list executions, the latest first, or group them by what became of them")
    add_filters(parser, STATUSES)
    parser.add_argument("--group", action="store_true", help="count them by status, workflow and error")
    parser.add_argument("--limit", type=positive, default=SHOWN, help="list at most so many (default: %(default)s)")
    add_output(parser)
    parser.set_defaults(command=command_over(ExecutionsStore, _list))


async def _list(asked: argparse.Namespace, store: ExecutionsStore) -> ExitCode:
    selection = selection_of(asked)
    if asked.group:
        write_rows([group_row(row) for row in await store.groups(selection)], asked.output)
        return ExitCode.OK
    found = await store.newest(selection, asked.limit + 1)
    write_rows([execution_row(row) for row in found[: asked.limit]], asked.output)
    if len(found) > asked.limit:
        say("there are more: --limit shows them, --group counts them")
    return ExitCode.OK
