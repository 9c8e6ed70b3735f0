"""`intelliflow workflow dlq`: the messages of executions that failed for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_ops.arguments import positive
from worker_ops.exit_codes import ExitCode
from worker_ops.output import add_output, at, say, write_rows
from worker_ops.servers import command_over
from worker_ops.workflow.dead_store import DeadStore
from worker_runtime.redaction import redact

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands

SHOWN = 100


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("dlq", help="show the dead letters of workflows, the latest first")
    parser.add_argument("--org", metavar="ORG", help="of this organisation")
    parser.add_argument("--limit", type=positive, default=SHOWN, help="show at most so many (default: %(default)s)")
    add_output(parser)
    parser.set_defaults(command=command_over(DeadStore, _dlq))


async def _dlq(asked: argparse.Namespace, store: DeadStore) -> ExitCode:
    found = await store.newest(asked.org, asked.limit + 1)
    write_rows([_row(row) for row in found[: asked.limit]], asked.output)
    if len(found) > asked.limit:
        say("there are more: --limit shows them; `intelliflow workflow list --status failed --group` counts them")
    return ExitCode.OK


def _row(row: Any) -> dict[str, Any]:
    return {
        "messageId": row["msg_id"],
        "executionId": row["execution_id"],
        "organizationId": row["organization"],
        "workflow": row["workflow"],
        # What it is now: one that was opened again is no longer failed.
        "status": row["status"],
        "attempts": row["total_attempts"],
        "enqueued": at(row["enqueued_at"]),
        "failed": row["failed_at"],
        "error": row["error"] and redact(row["error"]),
    }
