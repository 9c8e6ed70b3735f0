"""`intelliflow documents search`: by meaning where there are vectors, by words where there are none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from command_line import Operator, operator
from embedded_documents import embedding_server, ingest, local_embedder
from ingestion_worker.embedding import EmbeddingHandler
from ingestion_worker.jobs import EmbeddingGeneration
from ingestion_worker.store.vectors import VectorStore
from worker_runtime.metrics import Metrics
from worker_runtime.outcome import Done
from worker_runtime.postgres import BY_INDEX, Database
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingestion_worker.embeddings.embedder import Embedder

__all__ = ["operator"]

# A question, and the passage that answers it in other words.
QUESTIONS = {
    "How much time do customers have to pay a bill?": "Invoices are due within thirty days of the invoice date.",
    "What should I do when I cannot remember my login?": "Forgotten passwords can be reset through the link on the"
    " sign-in page.",
    "Are animals allowed in the flat?": "Tenants may keep small pets only with the written consent of the landlord.",
    "When did the firm come into existence?": "The company was founded in 1987 by two engineers in Graz.",
    "How do I get my money back?": "Goods returned in their original packaging are refunded in full.",
    "Is it permitted to do the job from my house?": "Employees may work remotely up to three days a week.",
    "What happens if the machine gets too hot?": "When the motor exceeds 90 degrees the controller shuts it down.",
    "Who has to be told about a data leak?": "A breach of personal data is reported to the supervisory authority"
    " within 72 hours.",
    "Can I bring more people to the party?": "Each guest may be accompanied by one additional person.",
    "How often must the filter be exchanged?": "Replace the air cartridge every 500 operating hours.",
}
OTHERS = [
    "The warehouse in Linz stores spare parts for pumps.",
    "Interest is calculated on the basis of 360 days a year.",
    "The annual report was approved by the supervisory board in May.",
    "Coffee beans are roasted for twelve minutes at 220 degrees.",
    "Our office is closed on public holidays.",
    "The contract is governed by Austrian law.",
    "Tickets for the museum cost twelve euros.",
    "The bridge was closed to trucks for repairs.",
    "Photosynthesis turns light into chemical energy.",
    "The orchestra rehearses on Tuesday evenings.",
]


async def embedded(url: str, texts: Sequence[str], document: str, tenant: str, embedder: Embedder) -> None:
    async with Database(url, settings=BY_INDEX) as database:
        await ingest(database, texts, document, tenant)
        handler = EmbeddingHandler(VectorStore(database), embedder, Metrics("ingestion-worker").embedding)
        payload = EmbeddingGeneration(documentId=document, tenantId=tenant)
        assert isinstance(await handler(job_for(payload)), Done)


async def stored(url: str, texts: Sequence[str], document: str, tenant: str) -> None:
    async with Database(url, settings=BY_INDEX) as database:
        await ingest(database, texts, document, tenant)


@pytest.fixture
def by_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_EMBEDDINGS", "true")


def test_the_passage_that_answers_a_question_comes_first(
    operator: Operator, database_url: str, by_meaning: None
) -> None:
    passages = [*QUESTIONS.values(), *OTHERS]
    asyncio.run(embedded(database_url, passages, "handbook", "acme", local_embedder()))
    asyncio.run(embedded(database_url, passages, "theirs", "another", local_embedder()))
    for question, passage in QUESTIONS.items():
        found = operator.json("documents search --tenant acme --limit 3", question)
        assert [len(found), found[0]["text"], found[0]["documentId"]] == [3, passage, "handbook"], question
        assert found[0]["score"] > found[1]["score"] >= found[2]["score"]
        assert {row["by"] for row in found} == {"meaning"}


def test_what_is_shown_of_a_piece(operator: Operator, database_url: str, by_meaning: None) -> None:
    asyncio.run(embedded(database_url, ["Pets are welcome. " * 20], "house-rules", "acme", local_embedder()))
    (row,) = operator.json("documents search --tenant acme", "dogs")
    assert row["text"] == "Pets are welcome. " * 20
    assert (row["chunk"], row["pages"], row["heading"]) == (1, "1-2", "Book > Chapter")
    said = operator.run("documents search --tenant acme", "dogs")
    assert (said.code, said.err) == (0, "")
    header, line = said.out.splitlines()
    assert header.split() == ["score", "documentId", "pages", "heading", "excerpt"]
    assert "house-rules  1-2    Book > Chapter  Pets are welcome. Pets" in line
    assert line.endswith("...")


def test_the_service_that_made_the_vectors_is_asked(
    operator: Operator, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def search() -> list[str]:
        async with embedding_server() as server:
            for name, value in (
                ("ENABLE_EMBEDDINGS", "true"),
                ("EMBEDDING_PROVIDER", "openai"),
                ("EMBEDDING_BASE_URL", server.url),
                ("EMBEDDING_MODEL", "theirs"),
            ):
                monkeypatch.setenv(name, value)
            found = await asyncio.to_thread(operator.json, "documents search --tenant acme", "felines")
            return [row["text"] for row in found]

    class Theirs:
        provider, name, model = "openai", "theirs", "theirs"
        embed = local_embedder().embed

    asyncio.run(embedded(database_url, ["Cats sleep a lot.", "Cars need fuel."], "d-1", "acme", Theirs()))
    assert asyncio.run(search()) == ["Cats sleep a lot.", "Cars need fuel."]


@pytest.mark.parametrize(
    ("variables", "because"),
    [
        ({}, "ENABLE_EMBEDDINGS=false"),
        ({"ENABLE_EMBEDDINGS": "true"}, "no document of this tenant was embedded with all-MiniLM-L6-v2-int8@"),
        (
            {
                "ENABLE_EMBEDDINGS": "true",
                "EMBEDDING_PROVIDER": "openai",
                "EMBEDDING_BASE_URL": "http://127.0.0.1:1",
                "EMBEDDING_MODEL": "m",
            },
            "PROVIDER_UNAVAILABLE",
        ),
    ],
)
def test_without_vectors_it_searches_by_words_and_says_so(
    operator: Operator,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    because: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    texts = ["The pump hums.", "A loud pump in the cellar", "cellar stairs", "Nothing of it."]
    asyncio.run(stored(database_url, texts, "d-1", "acme"))
    asyncio.run(stored(database_url, texts, "d-1", "another"))
    said = operator.run("documents search --tenant acme -o json", "Cellar's pump?")
    assert f"searched by words, not by meaning: {because}" in said.err
    assert {row["by"] for row in said.rows} == {"words"}
    assert said.rows[0]["text"] == texts[1]
    assert sorted(row["text"] for row in said.rows) == sorted(texts[:3])


@pytest.mark.parametrize("text", ["", "   ", "'; DROP TABLE document; --", "a & !b | (", "\\", "x" * 10_000])
def test_any_text_can_be_searched_for(operator: Operator, database_url: str, text: str) -> None:
    asyncio.run(stored(database_url, ["The pump hums."], "d-1", "acme"))
    said = operator.run("documents search --tenant acme -o json", text)
    assert said.code == 0, said
    assert said.rows == []


def test_a_database_without_pgvector_is_searched_by_words(
    operator: Operator, database_url: str, by_meaning: None
) -> None:
    operator.database.execute("DROP TABLE document_vector")
    asyncio.run(stored(database_url, ["The pump hums."], "d-1", "acme"))
    said = operator.run("documents search --tenant acme", "pump")
    assert "the database has no pgvector" in said.err
    assert "The pump hums." in said.out


def test_words_are_found_by_their_index(operator: Operator, database_url: str) -> None:
    asyncio.run(stored(database_url, [f"word{number} here" for number in range(2_000)], "d-1", "acme"))
    statement = (
        "EXPLAIN SELECT FROM document_chunk WHERE to_tsvector('simple', text) @@ to_tsquery('simple', 'word7')"
        " AND tenant_id = 'acme'"
    )
    with psycopg.connect(database_url) as connection:
        connection.execute("ANALYZE document_chunk")
        plan = "\n".join(row[0] for row in connection.execute(statement))
    assert "document_chunk_words" in plan
