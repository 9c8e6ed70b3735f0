"""Embedding whole documents: every piece gets the vector of its text, once, and nothing stale is left or found."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from embedded_documents import ingest, local_embedder
from ingestion_worker.embedding import BATCH, EmbeddingHandler
from ingestion_worker.embeddings.embedder import Blame, NotEmbedded
from ingestion_worker.jobs import EmbeddingGeneration
from ingestion_worker.store.vectors import VectorStore
from worker_runtime.metrics import Metrics
from worker_runtime.outcome import DeadLetter, Defer, Done, Retry
from worker_runtime.postgres import BY_INDEX, Database
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ingestion_worker.embeddings.embedder import Vector
    from worker_runtime.outcome import Outcome

TEXTS = ["Invoices are due within thirty days.", "Cats sleep for most of the day.", "The engine needs new oil."]
RIGHT = """
SELECT count(*) FROM document_vector AS kept JOIN document_chunk AS chunk USING (tenant_id, document_id, number)
 WHERE kept.digest = sha256(convert_to(chunk.text, 'UTF8'))
"""


class Counting:
    """The local model, which counts what it is asked for; `before` runs first."""

    provider, name = "local", "all-MiniLM-L6-v2"

    def __init__(self, model: str = "") -> None:
        self.model = model or local_embedder().model
        self.asked: list[str] = []
        self.before: Any = None

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self.before is not None:
            await self.before(texts)
        self.asked += texts
        return await local_embedder().embed(texts)


class Notes:
    def __init__(self) -> None:
        self.progress: list[Any] = []

    async def report_progress(self, progress: Any) -> None:
        self.progress.append(progress)


class Bench:
    """A handler on a database of the test's own."""

    def __init__(self, database: Database, embedder: Counting | None = None) -> None:
        self.database = database
        self.store = VectorStore(database)
        self.embedder = embedder or Counting()
        self.metrics = Metrics("ingestion-worker")
        self.handler = EmbeddingHandler(self.store, self.embedder, self.metrics.embedding)
        self.notes = Notes()

    async def run(self, document: str = "d-1", tenant: str = "t-1", **fields: Any) -> Outcome:
        payload = EmbeddingGeneration(documentId=document, tenantId=tenant, **fields)
        return await self.handler(job_for(payload, notes=self.notes))  # type: ignore[arg-type]

    async def done(self, document: str = "d-1", tenant: str = "t-1", **fields: Any) -> dict[str, Any]:
        outcome = await self.run(document, tenant, **fields)
        assert isinstance(outcome, Done), outcome
        result: dict[str, Any] = outcome.result
        return result

    async def value(self, statement: str, *arguments: object) -> Any:
        async with self.database.connected() as connection:
            return await connection.fetchval(statement, *arguments)

    async def vectors(self) -> int:
        return int(await self.value("SELECT count(*) FROM document_vector"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, settings=BY_INDEX) as database:
        yield database


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


async def test_every_piece_gets_the_vector_of_its_text(bench: Bench) -> None:
    texts = [f"{TEXTS[number % 3]} Number {number}." for number in range(BATCH + 9)]
    await ingest(bench.database, texts)
    result = await bench.done()
    assert result.pop("ms") > 0
    assert result == {
        "documentId": "d-1",
        "chunks": BATCH + 9,
        "embedded": BATCH + 9,
        "cached": 0,
        "model": local_embedder().model,
        "dims": 384,
    }
    assert await bench.value(RIGHT) == await bench.vectors() == BATCH + 9
    assert bench.notes.progress == [
        {"stage": "embedding", "done": BATCH, "total": BATCH + 9},
        {"stage": "embedding", "done": BATCH + 9, "total": BATCH + 9},
    ]
    assert await bench.value("SELECT embedding_model FROM document WHERE embedded_at IS NOT NULL") == result["model"]
    found = await bench.store.search("t-1", result["model"], (await local_embedder().embed([texts[70]]))[0], 1)
    assert found
    assert (found[0].number, found[0].text, found[0].headings) == (71, texts[70], ("Book", "Chapter"))
    assert found[0].score == pytest.approx(1, abs=1e-3)


async def test_the_metrics_tell_what_was_computed(bench: Bench) -> None:
    await ingest(bench.database, TEXTS)
    await bench.done()
    await bench.done()
    scrape = bench.metrics.scrape().decode()
    assert 'intelliflow_embedding_texts_total{provider="local",source="computed"} 3.0' in scrape
    assert 'intelliflow_embedding_texts_total{provider="local",source="cached"} 3.0' in scrape
    assert 'intelliflow_embedding_tokens_total{provider="local"} 30.0' in scrape
    assert 'intelliflow_embedding_batch_seconds_count{provider="local"} 1.0' in scrape


async def test_only_what_changed_is_computed_when_a_document_is_read_anew(bench: Bench) -> None:
    texts = [f"Paragraph {number} says something." for number in range(200)]
    await ingest(bench.database, texts)
    await bench.done()
    bench.embedder.asked.clear()
    await ingest(bench.database, ["A new first paragraph.", *texts[:100], *texts[101:]])
    result = await bench.done()
    assert bench.embedder.asked == ["A new first paragraph."]
    assert (result["embedded"], result["cached"]) == (1, 199)
    assert await bench.value(RIGHT) == await bench.vectors() == 200


async def test_the_same_text_is_computed_once_for_a_tenant_and_never_shared_with_another(bench: Bench) -> None:
    await ingest(bench.database, [TEXTS[0], TEXTS[0], TEXTS[1]], "d-1", "t-1")
    await ingest(bench.database, [TEXTS[1]], "d-2", "t-1")
    await ingest(bench.database, [TEXTS[1]], "d-1", "t-2")
    assert (await bench.done("d-1", "t-1"))["embedded"] == 3
    assert bench.embedder.asked == [TEXTS[0], TEXTS[1]]
    assert (await bench.done("d-2", "t-1"))["cached"] == 1
    assert (await bench.done("d-1", "t-2"))["embedded"] == 1


async def test_a_shorter_document_leaves_no_vectors_behind(bench: Bench) -> None:
    await ingest(bench.database, TEXTS)
    await bench.done()
    await ingest(bench.database, TEXTS[:1])
    assert (await bench.done())["cached"] == 1
    assert await bench.vectors() == 1
    await ingest(bench.database, [])
    assert (await bench.done())["chunks"] == 0
    assert await bench.vectors() == 0


async def test_another_model_embeds_anew_and_takes_the_place_of_the_first(database: Database) -> None:
    await ingest(database, TEXTS)
    await Bench(database).done()
    other = Bench(database, Counting("another-model@2"))
    assert (await other.done())["embedded"] == 3
    assert await other.value("SELECT array_agg(DISTINCT model) FROM document_vector") == ["another-model@2"]


async def test_a_stale_vector_is_never_found(bench: Bench) -> None:
    await ingest(bench.database, TEXTS)
    await bench.done()
    await ingest(bench.database, ["Something else entirely.", TEXTS[1]])
    (vector,) = await local_embedder().embed([TEXTS[0]])
    found = await bench.store.search("t-1", bench.embedder.model, vector, 10)
    assert found is not None
    assert [one.text for one in found] == [TEXTS[1]]


async def test_a_document_that_is_stored_anew_meanwhile_is_embedded_as_it_is_then(bench: Bench) -> None:
    await ingest(bench.database, TEXTS)

    async def stored_anew(_: Sequence[str]) -> None:
        bench.embedder.before = None
        await ingest(bench.database, ["Written in between.", *TEXTS[1:]])

    bench.embedder.before = stored_anew
    outcome = await bench.run()
    assert isinstance(outcome, Defer)
    assert outcome.code == "DOCUMENT_CHANGED"
    assert await bench.value("SELECT count(*) FROM document WHERE embedded_at IS NOT NULL") == 0
    assert await bench.value("SELECT count(*) FROM document_vector WHERE number = 1") == 0
    assert (await bench.done())["cached"] == 2
    assert await bench.value(RIGHT) == await bench.vectors() == 3


async def test_two_jobs_for_one_document_at_once_do_no_harm(database_url: str) -> None:
    async with Database(database_url) as one, Database(database_url) as two:
        await ingest(one, TEXTS * 30)
        first, second = Bench(one), Bench(two)
        await asyncio.gather(first.done(), second.done())
        assert await first.value(RIGHT) == await first.vectors() == 90


async def test_an_interrupted_job_goes_on_where_it_was(bench: Bench) -> None:
    await ingest(bench.database, [f"Sentence number {number}." for number in range(BATCH + 1)])

    async def out_of_order(texts: Sequence[str]) -> None:
        if len(texts) < BATCH:
            raise NotEmbedded(Retry("PROVIDER_UNAVAILABLE", "out of order"), Blame.PROVIDER)

    bench.embedder.before = out_of_order
    assert await bench.run() == Retry("PROVIDER_UNAVAILABLE", "out of order")
    bench.embedder.before = None
    result = await bench.done()
    assert (result["embedded"], result["cached"]) == (1, BATCH)


async def test_what_is_not_there_is_a_dead_letter(bench: Bench) -> None:
    await ingest(bench.database, TEXTS, "d-1", "t-1")
    for document, tenant in (("d-2", "t-1"), ("d-1", "t-2")):
        outcome = await bench.run(document, tenant)
        assert isinstance(outcome, DeadLetter)
        assert outcome.code == "NOT_FOUND"


async def test_a_job_may_name_the_model_it_wants(bench: Bench) -> None:
    await ingest(bench.database, TEXTS)
    for name in ("all-MiniLM-L6-v2", local_embedder().model):
        await bench.done(model=name)
    outcome = await bench.run(model="text-embedding-3-large")
    assert isinstance(outcome, DeadLetter)
    assert outcome.code == "MODEL_UNKNOWN"
    assert "text-embedding-3-large" in outcome.reason
    assert local_embedder().model in outcome.reason


async def test_vectors_go_with_their_document(bench: Bench) -> None:
    await ingest(bench.database, TEXTS)
    await bench.done()
    await bench.value("DELETE FROM document")
    assert await bench.vectors() == 0


async def test_without_postgres_a_job_waits() -> None:
    async with Database("postgresql://nobody@127.0.0.1:1/nothing") as database:
        outcome = await Bench(database).run()
    assert isinstance(outcome, Defer)
    assert outcome.code == "STATE_UNAVAILABLE"
