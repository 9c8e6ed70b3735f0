"""Documents in PostgreSQL: replaced as a whole, and only by whoever has the claim."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from ingestion_worker.document import CHUNKS, PAGES, Chunk, Page, read_lines, write_lines
from ingestion_worker.records import Claim, Content, DocumentKey, Known, LostClaim, Origin, Reading, RecordsUnavailable
from ingestion_worker.store.documents import PostgresDocuments
from worker_runtime.postgres import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY, TWIN, STRANGER = DocumentKey("t-1", "d-1"), DocumentKey("t-1", "d-2"), DocumentKey("t-2", "d-1")
one, two, three, frozen, living = (Claim(Origin("s3://bucket/d-1.pdf", "u-1")) for _ in range(5))
CONTENT, OTHER = Content(b"\1" * 32, 100, "p-1"), Content(b"\2" * 32, 100, "p-1")
READING = Reading("application/pdf", "en", 2, 20, {"title": "A lease \0"})


@pytest.fixture
async def documents(database_url: str) -> AsyncIterator[PostgresDocuments]:
    async with Database(database_url) as database:
        yield PostgresDocuments(database)


def folder_with(folder: Path, *texts: str, chunks: bool = True, reason: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    write_lines(folder / PAGES, [Page(number, text, "text", reason) for number, text in enumerate(texts, 1)])
    (folder / CHUNKS).unlink(missing_ok=True)
    if chunks:
        write_lines(
            folder / CHUNKS,
            [Chunk(number, text, 3, number, number, ("A", "B")) for number, text in enumerate(texts, 1)],
        )
    return folder


def rows(database_url: str, question: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(question.encode()).fetchall()


async def test_a_document_is_kept_and_read_again_by_whoever_begins_next(
    documents: PostgresDocuments, database_url: str, tmp_path: Path
) -> None:
    assert await documents.begin(KEY, one) is None
    await documents.keep(KEY, one, CONTENT, READING, folder_with(tmp_path / "a", "first \0 page", "second"))
    known = await documents.begin(KEY, two)
    kept = Reading("application/pdf", "en", 2, 20, {"title": "A lease \\x00"})
    assert known == Known("read", CONTENT, kept, 2, None)
    pages = rows(database_url, "SELECT number, text FROM document_page ORDER BY number")
    assert pages == [(1, "first \\x00 page"), (2, "second")]
    cut = rows(database_url, "SELECT number, text, headings FROM document_chunk ORDER BY number")
    assert cut == [(1, "first \\x00 page", ["A", "B"]), (2, "second", ["A", "B"])]


async def test_reading_again_leaves_nothing_of_what_was_there(
    documents: PostgresDocuments, database_url: str, tmp_path: Path
) -> None:
    await documents.begin(KEY, one)
    await documents.keep(KEY, one, CONTENT, READING, folder_with(tmp_path / "a", *["old"] * 120))
    await documents.begin(KEY, two)
    await documents.keep(KEY, two, OTHER, READING, folder_with(tmp_path / "b", "new", chunks=False, reason="IMAGE"))
    assert rows(database_url, "SELECT text FROM document_page") == [("new",)]
    assert rows(database_url, "SELECT count(*) FROM document_chunk") == [(0,)]
    known = await documents.begin(KEY, three)
    assert known is not None
    assert (known.state, known.chunks, known.content) == ("awaiting_ocr", None, OTHER)


async def test_whoever_lost_the_claim_changes_nothing(
    documents: PostgresDocuments, database_url: str, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path / "a", "late")
    await documents.begin(KEY, frozen)
    await documents.begin(KEY, living)
    for late in (
        documents.keep(KEY, frozen, CONTENT, READING, folder),
        documents.keep_page(KEY, frozen, Page(1, "late")),
        documents.finish(KEY, frozen, READING, folder),
        documents.adopt(KEY, frozen, CONTENT),
        documents.note_problem(KEY, frozen, "CORRUPT", "late", final=True),
    ):
        with pytest.raises(LostClaim):
            await late
    assert rows(database_url, "SELECT state, problem FROM document") == [("reading", None)]
    assert rows(database_url, "SELECT count(*) FROM document_page") == [(0,)]


async def test_a_reading_that_fails_midway_keeps_what_was_there(
    documents: PostgresDocuments, database_url: str, tmp_path: Path
) -> None:
    await documents.begin(KEY, one)
    await documents.keep(KEY, one, CONTENT, READING, folder_with(tmp_path / "a", "old"))
    await documents.begin(KEY, two)
    broken = folder_with(tmp_path / "b", *["new"] * 60)
    with (broken / PAGES).open("a") as pages:
        pages.write('{"number": "no')
    with pytest.raises(Exception, match="CRASH"):
        await documents.keep(KEY, two, OTHER, READING, broken)
    assert rows(database_url, "SELECT text FROM document_page") == [("old",)]
    assert rows(database_url, "SELECT text FROM document_chunk") == [("old",)]


async def numbers(documents: PostgresDocuments) -> list[int]:
    return [page.number for page in await documents.pictures(KEY, one, None, Path())]


async def test_pages_come_back_with_what_ocr_made_of_them(documents: PostgresDocuments, tmp_path: Path) -> None:
    await documents.begin(KEY, one)
    folder = folder_with(tmp_path / "a", *[f"page {n}" for n in range(1, 121)], chunks=False, reason="NO_TEXT")
    await documents.keep(KEY, one, CONTENT, READING, folder)
    assert await numbers(documents) == list(range(1, 121))
    await documents.keep_page(KEY, one, Page(7, "seen", "ocr", "NO_TEXT", 0.5))
    await documents.keep_page(KEY, one, Page(8, "", "none", "FAILED:CRASH"))
    assert set(range(1, 121)) - set(await numbers(documents)) == {7, 8}
    assert [page.text for page in await documents.pictures(KEY, one, [7, 9, 500], tmp_path)] == ["seen", "page 9"]
    out = tmp_path / "b"
    out.mkdir()
    await documents.export_pages(KEY, one, out)
    pages = list(read_lines(out / PAGES, Page))
    assert [page.number for page in pages] == list(range(1, 121))
    assert (pages[6].text, pages[6].confidence, pages[0].text) == ("seen", 0.5, "page 1")
    write_lines(out / CHUNKS, [Chunk(1, "seen", 1, 7, 7)])
    await documents.finish(KEY, one, READING, out)
    known = await documents.begin(KEY, two)
    assert known is not None
    assert (known.state, known.chunks, known.content) == ("read", 1, CONTENT)


async def test_the_same_file_under_another_name_is_taken_over_but_not_from_another_tenant(
    documents: PostgresDocuments, database_url: str, tmp_path: Path
) -> None:
    await documents.begin(KEY, one)
    await documents.keep(KEY, one, CONTENT, READING, folder_with(tmp_path / "a", "text"))
    await documents.begin(STRANGER, two)
    assert await documents.adopt(STRANGER, two, CONTENT) is None
    await documents.begin(TWIN, three)
    assert await documents.adopt(TWIN, three, OTHER) is None
    adopted = await documents.adopt(TWIN, three, CONTENT)
    assert adopted is not None
    assert (adopted.state, adopted.chunks) == ("read", 1)
    copied = rows(database_url, "SELECT text FROM document_chunk WHERE tenant_id = 't-1' AND document_id = 'd-2'")
    assert copied == [("text",)]


async def test_a_problem_is_written_down_beside_what_was_read_before(
    documents: PostgresDocuments, database_url: str, tmp_path: Path
) -> None:
    await documents.begin(KEY, one)
    await documents.note_problem(KEY, one, "TIMEOUT", "took too long", final=False)
    assert rows(database_url, "SELECT state, problem FROM document") == [("reading", "TIMEOUT")]
    await documents.keep(KEY, one, CONTENT, READING, folder_with(tmp_path / "a", "text"))
    assert rows(database_url, "SELECT state, problem FROM document") == [("read", None)]
    await documents.note_problem(KEY, one, "CORRUPT", "cut off \0", final=True)
    told = rows(database_url, "SELECT state, problem, explanation, chunks FROM document")
    assert told == [("failed", "CORRUPT", "cut off \\x00", 1)]


async def test_a_server_that_is_away_is_no_document_s_fault(tmp_path: Path) -> None:
    async with Database("postgresql://u:p@127.0.0.1:1/x") as nowhere:
        with pytest.raises(RecordsUnavailable):
            await PostgresDocuments(nowhere).begin(KEY, one)


async def test_whoever_goes_on_with_a_content_has_it_until_it_is_read_or_another(
    documents: PostgresDocuments, database_url: str, tmp_path: Path
) -> None:
    going_on = Claim(Origin("s3://bucket/d-1.pdf"), CONTENT)
    with pytest.raises(LostClaim):
        await documents.begin(KEY, going_on)
    await documents.begin(KEY, one)
    scan = folder_with(tmp_path / "a", "", "", chunks=False, reason="NO_TEXT")
    await documents.keep(KEY, one, CONTENT, READING, scan)
    known = await documents.begin(KEY, going_on)
    assert known is not None
    assert known.state == "awaiting_ocr"
    # Whoever begins with the document takes nothing from it, and loses nothing to it.
    await documents.begin(KEY, two)
    await documents.keep_page(KEY, going_on, Page(1, "seen", "ocr", "NO_TEXT", 0.5))
    await documents.finish(KEY, going_on, READING, folder_with(tmp_path / "b", "seen"))
    for late in (
        documents.keep_page(KEY, going_on, Page(1, "late")),
        documents.finish(KEY, going_on, READING, scan),
        documents.note_problem(KEY, going_on, "CRASH", "late", final=True),
    ):
        with pytest.raises(LostClaim):
            await late
    await documents.keep(KEY, two, OTHER, READING, scan)
    with pytest.raises(LostClaim):
        await documents.begin(KEY, going_on)
    with pytest.raises(LostClaim):
        await documents.keep_page(KEY, going_on, Page(1, "late"))
    assert rows(database_url, "SELECT DISTINCT text FROM document_page") == [("",)]


async def test_what_a_twin_gives_has_no_vectors(
    documents: PostgresDocuments, database_url: str, tmp_path: Path
) -> None:
    await documents.begin(KEY, one)
    await documents.keep(KEY, one, CONTENT, READING, folder_with(tmp_path / "a", "text"))
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE document SET embedding_model = 'some'")
    await documents.begin(TWIN, two)
    adopted = await documents.adopt(TWIN, two, CONTENT)
    assert adopted is not None
    assert adopted.embedding_model is None
