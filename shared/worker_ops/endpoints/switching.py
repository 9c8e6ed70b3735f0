"""`intelliflow endpoints disable` and `enable`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.arguments import whoever_runs_this
from worker_ops.endpoints.opened import brief, endpoint_id, found, not_applied, run_with_table
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, write_rows

if TYPE_CHECKING:
    import argparse

    from notifications_worker.settings import NotificationsSettings
    from worker_ops.arguments import Commands
    from worker_ops.endpoints.store import EndpointTable


def register(verbs: Commands) -> None:
    """Add the verbs."""
    disable = verbs.add_parser("disable", help="send nothing more to an endpoint; what is queued for it dies")
    disable.add_argument("endpoint_id", metavar="ENDPOINT_ID", type=endpoint_id)
    disable.add_argument("--reason", metavar="WHY", default="", help="why; kept with the endpoint")
    disable.add_argument("--by", metavar="WHO", default=whoever_runs_this(), help="who (default: %(default)s)")
    disable.add_argument("--apply", action="store_true", help="do it, instead of saying what would be done")
    add_output(disable)
    run_with_table(disable, _disable)
    enable = verbs.add_parser("enable", help="send to an endpoint again, its failures forgotten")
    enable.add_argument("endpoint_id", metavar="ENDPOINT_ID", type=endpoint_id)
    add_output(enable)
    run_with_table(enable, _enable)


async def _disable(asked: argparse.Namespace, table: EndpointTable, _: NotificationsSettings) -> ExitCode:
    row = await found(table, asked)
    if not row["active"]:
        raise CommandFailed(ExitCode.FAILED, f"it is disabled already ({row['disabled_because'] or 'switched off'})")
    if not asked.apply:
        write_rows([brief(row)], asked.output)
        not_applied(f"disable {row['id']}")
    because = f"by {asked.by}" + (f": {asked.reason}" if asked.reason else "")
    write_rows([brief(await table.disable(row["id"], because) or await found(table, asked))], asked.output)
    return ExitCode.OK


async def _enable(asked: argparse.Namespace, table: EndpointTable, _: NotificationsSettings) -> ExitCode:
    row = await table.enable(asked.endpoint_id)
    write_rows([brief(row or await found(table, asked))], asked.output)
    return ExitCode.OK
