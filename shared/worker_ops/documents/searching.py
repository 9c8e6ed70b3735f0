"""`intelliflow documents search`: by meaning, or by words where there are no vectors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ingestion_worker.embeddings.embedder import NotEmbedded
from ingestion_worker.embeddings.local import ModelMissing
from ingestion_worker.embeddings.opened import opened_embedder
from ingestion_worker.settings import IngestionSettings
from ingestion_worker.store.vectors import VectorStore
from worker_ops.arguments import positive
from worker_ops.documents.search_store import DocumentsView
from worker_ops.exit_codes import ExitCode
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import opened_database

if TYPE_CHECKING:
    import argparse

    from ingestion_worker.store.vectors import Found
    from worker_ops.arguments import Commands
    from worker_runtime.postgres import Database

SHOWN, EXCERPT = 10, 160


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("search", help="find the pieces of documents that say what is asked for")
    parser.add_argument("text", help="a question, or what is looked for, in your own words")
    parser.add_argument("--tenant", metavar="TENANT", required=True, help="in the documents of this tenant")
    parser.add_argument("--limit", type=positive, default=SHOWN, help="show at most so many (default: %(default)s)")
    add_output(parser)
    parser.set_defaults(
        command=lambda asked, settings: asyncio.run(_search(asked, settings)), settings_type=IngestionSettings
    )


class NoMeaning(Exception):
    """Nothing can be searched by meaning; the sentence says why."""


async def _search(asked: argparse.Namespace, settings: IngestionSettings) -> ExitCode:
    async with opened_database(settings) as database:
        try:
            found, by = await _by_meaning(asked, settings, database), "meaning"
        except NoMeaning as why:
            say(f"searched by words, not by meaning: {why}")
            found, by = await DocumentsView(database).by_words(asked.tenant, asked.text, asked.limit), "words"
    write_rows([_row(one, by, whole=asked.output != "table") for one in found], asked.output)
    return ExitCode.OK


async def _by_meaning(asked: argparse.Namespace, settings: IngestionSettings, database: Database) -> list[Found]:
    store = VectorStore(database)
    if not settings.enable_embeddings:
        raise NoMeaning("ENABLE_EMBEDDINGS=false")
    if not await store.is_ready():
        raise NoMeaning("the database has no pgvector")
    try:
        async with opened_embedder(settings) as embedder:
            (vector,) = await embedder.embed([asked.text])
    except (ModelMissing, NotEmbedded) as error:
        raise NoMeaning(str(error)) from error
    found = await store.search(asked.tenant, embedder.model, vector, asked.limit)
    if found is None:
        raise NoMeaning(f"no document of this tenant was embedded with {embedder.model}")
    return found


def _row(found: Found, by: str, *, whole: bool) -> dict[str, Any]:
    """Write what was found; with `whole`, its whole text and where it came from."""
    first, last = found.first_page, found.last_page
    text = " ".join(found.text.split())
    row = {
        "score": round(found.score, 3),
        "documentId": found.document_id,
        "pages": f"{first}" if first == last else f"{first}-{last}",
        "heading": " > ".join(found.headings) or None,
    }
    if whole:
        return row | {"chunk": found.number, "by": by, "text": found.text}
    return row | {"excerpt": text if len(text) <= EXCERPT else f"{text[:EXCERPT]}..."}
