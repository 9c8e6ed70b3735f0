"""`intelliflow deliveries list`: one by one, or by what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.arguments import positive
from worker_ops.deliveries.selecting import add_filters, delivery_row, group_row, selection_of
from worker_ops.deliveries.store import DeliveriesStore
from worker_ops.exit_codes import ExitCode
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import command_over

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands

SHOWN = 100


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("list", help="list deliveries, the latest first, or group them by what became of them")
    add_filters(parser)
    parser.add_argument("--recipient", metavar="ADDRESS", help="to this address, number or URL")
    parser.add_argument("--group", action="store_true", help="count them by channel, state and code")
    parser.add_argument("--limit", type=positive, default=SHOWN, help="list at most so many (default: %(default)s)")
    parser.add_argument("--reveal", action="store_true", help="show recipients instead of masking them")
    add_output(parser)
    parser.set_defaults(command=command_over(DeliveriesStore, _list))


async def _list(asked: argparse.Namespace, store: DeliveriesStore) -> ExitCode:
    selection = selection_of(asked)
    if asked.group:
        write_rows([group_row(row) for row in await store.groups(selection)], asked.output)
        return ExitCode.OK
    found = await store.newest(selection, asked.limit)
    write_rows([delivery_row(row, reveal=asked.reveal) for row in found], asked.output)
    if len(found) == asked.limit and (more := await store.count(selection) - len(found)) > 0:
        say(f"and {more} more: --limit shows them, --group counts them")
    return ExitCode.OK
