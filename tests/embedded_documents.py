"""Documents as an ingestion leaves them, and a server that speaks the wire format of embedding services and embeds."""

from __future__ import annotations

import base64
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ingestion_worker.embeddings.local import LocalEmbedder, loaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.postgres import Database

__all__ = ["EmbeddingServer", "embedding_server", "ingest", "local_embedder"]

DOCUMENT = """
INSERT INTO document (tenant_id, document_id, source, state, claim) VALUES ($1, $2, 'test', 'read', 'job-1')
ON CONFLICT DO NOTHING
"""
CLEAR = "DELETE FROM document_chunk WHERE (tenant_id, document_id) = ($1, $2)"
CHUNK = """
INSERT INTO document_chunk (tenant_id, document_id, number, text, tokens, first_page, last_page, headings)
SELECT $1, $2, number, text, 10, number, number + 1, '{Book,Chapter}'
  FROM unnest($3::text[]) WITH ORDINALITY AS given (text, number)
"""


async def ingest(database: Database, texts: Sequence[str], document: str = "d-1", tenant: str = "t-1") -> None:
    """Store a document that has these pieces, in the place of what it had."""
    async with database.transaction() as connection:
        await connection.execute(DOCUMENT, tenant, document)
        await connection.execute(CLEAR, tenant, document)
        await connection.execute(CHUNK, tenant, document, list(texts))


@cache
def local_embedder() -> LocalEmbedder:
    """The local model, loaded once for all tests of a process; its threads end with the process."""
    return LocalEmbedder(loaded(), ThreadPoolExecutor(1, thread_name_prefix="embedding"))


@dataclass
class EmbeddingServer:
    """What `POST /v1/embeddings` was asked, and how it is to answer."""

    key: str | None = None
    encoding: str = "base64"
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"code": "invalid_api_key", "message": "wrong"}}, status=401)
        asked = await request.json()
        self.asked.append(asked)
        vectors = [vector[: asked.get("dimensions")] for vector in await local_embedder().embed(asked["input"])]
        # In any order: what counts is the index.
        made = [
            {"object": "embedding", "index": index, "embedding": self._written(vector)}
            for index, vector in reversed(list(enumerate(vectors)))
        ]
        return web.json_response({"object": "list", "data": made, "model": asked["model"], "usage": {}})

    def _written(self, vector: list[float]) -> Any:
        return vector if self.encoding == "float" else base64.b64encode(array("f", vector).tobytes()).decode()


@asynccontextmanager
async def embedding_server(**how: Any) -> AsyncIterator[EmbeddingServer]:
    """Serve on a loopback port."""
    server = EmbeddingServer(**how)
    app = web.Application()
    app.router.add_post("/v1/embeddings", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert isinstance(runner.addresses[0], tuple)
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()
