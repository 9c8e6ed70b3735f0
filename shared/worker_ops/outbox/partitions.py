"""`intelliflow outbox partitions`: who relays which part of the aggregates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.exit_codes import ExitCode
from worker_ops.outbox.opened import Outbox, run_with_outbox
from worker_ops.output import add_output, say, write_rows

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("partitions", help="show the owner, the token and the lease of every partition")
    add_output(parser)
    parser.set_defaults(command=run_with_outbox(_partitions))


async def _partitions(asked: argparse.Namespace, outbox: Outbox) -> ExitCode:
    found = await outbox.view.partitions()
    rows = [
        {
            "partition": row["partition"],
            "owner": row["owner"],
            "token": row["token"],
            "leaseSeconds": round(row["seconds"], 1) if row["owner"] else None,
        }
        for row in found
    ]
    write_rows(rows, asked.output)
    if not rows:
        say("no events-worker has started on this database yet")
    elif ownerless := [row["partition"] for row in rows if row["owner"] is None]:
        say(f"{len(ownerless)} of {len(rows)} partitions have no owner: no events-worker publishes their events")
    return ExitCode.OK
