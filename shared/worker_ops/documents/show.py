"""`intelliflow documents show`: everything that is known of one document, page by page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from worker_ops.documents.selecting import document_row
from worker_ops.documents.store import DocumentsStore, Selection
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, at, write_record
from worker_ops.servers import command_over

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands

SEVERAL = 20


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("show", help="show a document, its pages, and why something of it was not read")
    parser.add_argument("document_id", metavar="DOCUMENT_ID")
    parser.add_argument("--tenant", metavar="TENANT", help="of this tenant")
    parser.add_argument("--reveal", action="store_true", help="show the text of its pages, and its metadata")
    add_output(parser)
    parser.set_defaults(command=command_over(DocumentsStore, _show))


async def _show(asked: argparse.Namespace, store: DocumentsStore) -> ExitCode:
    found = await store.newest(Selection([asked.document_id], tenant=asked.tenant), SEVERAL)
    if not found:
        raise CommandFailed(ExitCode.NOT_FOUND, f"nothing is known of a document {asked.document_id}")
    if len(found) > 1:
        tenants = ", ".join(row["tenant_id"] for row in found)
        raise CommandFailed(ExitCode.USAGE, f"{asked.document_id} is there for the tenants {tenants}: name --tenant")
    row = found[0]
    pages = await store.pages(row["tenant_id"], row["document_id"], with_text=asked.reveal)
    record = document_row(row) | {
        "source": row["source"],
        "userId": row["user_id"],
        "bytes": row["bytes"],
        "sha256": row["sha256"] and row["sha256"].hex(),
        "pipeline": row["pipeline"],
        "language": row["language"],
        "characters": row["characters"],
        "embeddingModel": row["embedding_model"],
        "created": at(row["created_at"]),
        "read": at(row["read_at"]),
        "embeddedAt": at(row["embedded_at"]),
        "pagesRead": [_page(page, reveal=asked.reveal) for page in pages],
    }
    if asked.reveal:
        record["metadata"] = json.loads(row["metadata"])
    write_record(record, asked.output)
    return ExitCode.OK


def _page(row: Any, *, reveal: bool) -> dict[str, Any]:
    page = {
        "page": row["number"],
        "origin": row["origin"],
        "ocrReason": row["ocr_reason"],
        "confidence": row["confidence"] and round(row["confidence"], 3),
        "characters": row["characters"],
    }
    return page | ({"text": row["text"]} if reveal else {})
