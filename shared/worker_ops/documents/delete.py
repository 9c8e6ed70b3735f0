"""`intelliflow documents delete`: nothing of a document is kept or found any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.documents.selecting import document_row
from worker_ops.documents.store import DocumentsStore, Selection
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import command_over

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands

MOST_NAMED = 1_000


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("delete", help="remove documents with their pages, chunks and vectors")
    parser.add_argument("document_ids", metavar="DOCUMENT_ID", nargs="+")
    parser.add_argument("--tenant", metavar="TENANT", required=True, help="of this tenant")
    parser.add_argument("--apply", action="store_true", help="do it, instead of saying what would be done")
    add_output(parser)
    parser.set_defaults(command=command_over(DocumentsStore, _delete))


async def _delete(asked: argparse.Namespace, store: DocumentsStore) -> ExitCode:
    if len(asked.document_ids) > MOST_NAMED:
        raise CommandFailed(ExitCode.USAGE, f"at most {MOST_NAMED} documents at a time")
    found = await store.newest(Selection(asked.document_ids, tenant=asked.tenant), MOST_NAMED)
    if not found:
        raise CommandFailed(ExitCode.NOT_FOUND, "none of these documents is known")
    write_rows([document_row(row) for row in found], asked.output)
    if not asked.apply:
        say(f"would delete {len(found)} documents: --apply does it")
        return ExitCode.OK
    deleted = await store.delete(asked.tenant, [row["document_id"] for row in found])
    say(f"deleted {len(deleted)} documents")
    return ExitCode.OK if len(found) == len(set(asked.document_ids)) else ExitCode.PARTIAL
