"""Results in the object store: a folder, and a real S3 server."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion_worker.document import CHUNKS, PAGES
from ingestion_worker.store.objects import ObjectDocuments, place_of
from s3_server import BUCKET, s3_server
from worker_runtime.storage import NoSuchObject, ObjectStore, StorageError, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIELDS: dict[str, Any] = {"tenantId": "t/1", "documentId": "Größe.pdf", "state": "read", "metadata": {"title": "Käse"}}


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store that is empty."""
    if request.param == "folder":
        (tmp_path / "objects").mkdir()
        yield ObjectStore(str(tmp_path / "objects"))
        return
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield ObjectStore(f"s3://{BUCKET}/results")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / PAGES).write_text('{"number":1}\n' * 100_000)
    (folder / CHUNKS).write_text('{"number":1}\n')
    (folder / "source").write_bytes(b"not a result")
    return folder


def facts(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


async def test_a_result_is_written_and_read(store: ObjectStore, folder: Path) -> None:
    documents = ObjectDocuments(store)
    assert await documents.get("t/1", "Größe.pdf") is None
    await documents.put_result(FIELDS, folder)

    pages, chunks = (folder / PAGES).read_bytes(), (folder / CHUNKS).read_bytes()
    files = {PAGES: facts(pages), CHUNKS: facts(chunks)}
    assert await documents.get("t/1", "Größe.pdf") == FIELDS | {"files": files}
    assert await documents.get("t/1", "another") is None
    assert await store.read("documents/t_2F1/Gr_C3_B6_C3_9Fe.pdf/pages.ndjson", 10_000_000) == pages
    assert await store.read("documents/t_2F1/Gr_C3_B6_C3_9Fe.pdf/chunks.ndjson", 10_000_000) == chunks


async def test_a_later_result_leaves_nothing_of_the_earlier_one(store: ObjectStore, folder: Path) -> None:
    documents = ObjectDocuments(store)
    await documents.put_result(FIELDS, folder)
    (folder / CHUNKS).unlink()
    (folder / PAGES).write_text("")
    await documents.put_result(FIELDS | {"state": "awaiting_ocr"}, folder)

    record = await documents.get("t/1", "Größe.pdf")
    assert record == FIELDS | {"state": "awaiting_ocr", "files": {PAGES: facts(b"")}}
    with pytest.raises(NoSuchObject):
        await store.read(f"{place_of('t/1', 'Größe.pdf')}/{CHUNKS}", 1)


async def test_the_record_is_written_last(tmp_path: Path, folder: Path) -> None:
    written: list[str] = []

    class Noting(ObjectStore):
        async def put(self, key: str, content: Path | bytes, *, seconds: float = 10.0) -> None:
            if len(written) == 2:
                raise StorageUnavailable("away")
            written.append(key.rsplit("/", 1)[-1])
            await super().put(key, content, seconds=seconds)

    (tmp_path / "objects").mkdir()
    documents = ObjectDocuments(Noting(str(tmp_path / "objects")))
    with pytest.raises(StorageUnavailable):
        await documents.put_result(FIELDS, folder)
    assert written == [PAGES, CHUNKS]
    assert await documents.get("t/1", "Größe.pdf") is None


async def test_a_store_that_is_away_is_not_a_document_that_is_missing(tmp_path: Path, folder: Path) -> None:
    documents = ObjectDocuments(ObjectStore(str(tmp_path / "not-mounted")))
    with pytest.raises(StorageUnavailable):
        await documents.get("t", "d")
    with pytest.raises(StorageUnavailable):
        await documents.put_result(FIELDS, folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
async def test_a_record_that_somebody_else_wrote_is_no_record(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "objects").mkdir()
    store = ObjectStore(str(tmp_path / "objects"))
    await store.put(f"{place_of('t', 'd')}/document.json", content)
    with pytest.raises(StorageError, match=r"document\.json is not a JSON object"):
        await ObjectDocuments(store).get("t", "d")


@pytest.mark.parametrize(
    ("tenant", "document_id", "place"),
    [
        ("t-1", "3f0c9a0e-4b7e-4a53-9a55-0b7a0c1f2d3e", "documents/t-1/3f0c9a0e-4b7e-4a53-9a55-0b7a0c1f2d3e"),
        ("..", ".", "documents/_2E./_2E"),
        ("a/b", "c", "documents/a_2Fb/c"),
        ("a", "b/c", "documents/a/b_2Fc"),
        ("a_2Fb", "c\0%", "documents/a_5F2Fb/c_00_25"),
        ("a" * 200, "b", "documents/" + "a" * 200 + "/b"),
        ("a", "ä" * 512, "documents/a/__" + hashlib.sha256(("ä" * 512).encode()).hexdigest()),
    ],
)
def test_where_a_document_lies(tenant: str, document_id: str, place: str) -> None:
    assert place_of(tenant, document_id) == place


IDS = st.text(st.characters(codec=None), min_size=1, max_size=512)


@given(IDS, IDS, IDS, IDS)
def test_no_two_documents_share_a_place(tenant: str, document_id: str, other: str, other_id: str) -> None:
    one, two = place_of(tenant, document_id), place_of(other, other_id)
    assert (one == two) == ((tenant, document_id) == (other, other_id))
    assert one.count("/") == 2
    assert len(one) < 500
    assert all(part not in {"", ".", ".."} and len(part) <= 200 for part in one.split("/"))
