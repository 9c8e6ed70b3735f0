"""`intelliflow endpoints rotate`: a new secret, beside which the old one signs for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from notifications_worker.channels.webhook_signature import new_secret
from worker_ops.arguments import span
from worker_ops.endpoints.adding import add_asymmetric, shown_once
from worker_ops.endpoints.opened import brief, endpoint_id, found, not_applied, run_with_table, whole
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, say, write_record, write_rows

if TYPE_CHECKING:
    import argparse

    from notifications_worker.settings import NotificationsSettings
    from worker_ops.arguments import Commands
    from worker_ops.endpoints.store import EndpointTable

OVERLAP = timedelta(hours=24)


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("rotate", help="give an endpoint a new secret; the old one signs too, for a while")
    parser.add_argument("endpoint_id", metavar="ENDPOINT_ID", type=endpoint_id)
    parser.add_argument("--overlap", metavar="SPAN", type=span, default=OVERLAP, help="for how long (default: 24h)")
    parser.add_argument("--apply", action="store_true", help="do it, instead of saying what would be done")
    add_asymmetric(parser)
    add_output(parser)
    run_with_table(parser, _rotate)


async def _rotate(asked: argparse.Namespace, table: EndpointTable, settings: NotificationsSettings) -> ExitCode:
    row = await found(table, asked)
    if not asked.apply:
        write_rows([brief(row)], asked.output)
        ends = " and end the one before it now" if row["previous_secret"] else ""
        not_applied(f"replace the key of {row['id']}, keep it for {asked.overlap}{ends}")
    secret, operators = new_secret(asymmetric=asked.asymmetric), settings.webhook_signing_secret
    fallback = operators.get_secret_value() if operators else None
    rotated = await table.rotate(row["id"], secret, fallback, asked.overlap, known=row["secret"])
    if rotated is None:
        raise CommandFailed(ExitCode.FAILED, "somebody else rotated it at this moment: nothing was done")
    write_record(whole(rotated, reveal=False) | shown_once(secret), asked.output)
    say("the secret is shown this once: hand it to the receiver before the overlap ends")
    return ExitCode.OK
