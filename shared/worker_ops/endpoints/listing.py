"""`intelliflow endpoints list`, and `show` for one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.endpoints.opened import brief, endpoint_id, found, run_with_table, whole
from worker_ops.exit_codes import ExitCode
from worker_ops.output import add_output, write_record, write_rows

if TYPE_CHECKING:
    import argparse

    from notifications_worker.settings import NotificationsSettings
    from worker_ops.arguments import Commands
    from worker_ops.endpoints.store import EndpointTable


def register(verbs: Commands) -> None:
    """Add the verbs."""
    listing = verbs.add_parser("list", help="show endpoints, by tenant")
    listing.add_argument("--tenant", metavar="TENANT", help="of this tenant")
    listing.add_argument("--disabled", action="store_true", help="those that nothing is sent to")
    listing.add_argument("--failing", action="store_true", help="those that have not had a success since a failure")
    add_output(listing)
    run_with_table(listing, _list)
    showing = verbs.add_parser("show", help="show one endpoint")
    showing.add_argument("endpoint_id", metavar="ENDPOINT_ID", type=endpoint_id)
    showing.add_argument("--reveal", action="store_true", help="show its URL and headers, which may hold secrets")
    add_output(showing)
    run_with_table(showing, _show)


async def _list(asked: argparse.Namespace, table: EndpointTable, _: NotificationsSettings) -> ExitCode:
    rows = await table.some(asked.tenant, disabled=asked.disabled, failing=asked.failing)
    write_rows([brief(row) for row in rows], asked.output)
    return ExitCode.OK


async def _show(asked: argparse.Namespace, table: EndpointTable, _: NotificationsSettings) -> ExitCode:
    write_record(whole(await found(table, asked), reveal=asked.reveal), asked.output)
    return ExitCode.OK
