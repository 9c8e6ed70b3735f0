"""The ingestion-worker as the process it is: documents in, text out, and whatever is wrong with one has a name."""

from __future__ import annotations

import json
import signal
import zipfile
from typing import TYPE_CHECKING

import pypdfium2
import pytest

from document_desk import EMBEDDING, EXTRACTION, OCR, DocumentDesk, document_desk
from hostile_documents import mail_with_bomb
from worker_suite import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = {"QUEUE_LOCK_DURATION_MS": "1000", "QUEUE_STALLED_INTERVAL_MS": "300"}
SOON = {"RETRY_TEXT_EXTRACTION_DELAYS_MS": "50"}


@pytest.fixture
def desk(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[DocumentDesk]:
    with document_desk(redis_url, database_url, tmp_path) as made:
        yield made


def test_documents_become_pages_and_chunks_and_jobs_say_little(desk: DocumentDesk) -> None:
    desk.worker().ready()
    first = desk.add(desk.sample("lease.pdf"), "lease")
    lease = desk.result(first)
    offer = desk.result(desk.add(desk.sample("offer.docx"), "offer", format="pdf"))
    assert {name: lease[name] for name in ("documentId", "state", "mediaType", "pages", "unchanged")} == {
        "documentId": "lease",
        "state": "read",
        "mediaType": "application/pdf",
        "pages": 2,
        "unchanged": False,
    }
    assert lease["chunks"] >= 1
    assert "three months' notice" in desk.text("lease").replace("\u2019", "'")
    assert "| Rent | 980 |" in desk.text("offer")
    assert offer["mediaType"].endswith("wordprocessingml.document")
    assert "Lovelace" not in json.dumps([lease, offer])
    assert desk.rows("SELECT count(*) FROM document WHERE state = 'read' AND language = 'eng'") == [(2,)]
    progress = json.loads(desk.job(first)["progress"])
    assert progress == {"stage": "extract", "done": 2, "total": 2}


def test_the_same_bytes_are_not_read_twice_and_others_replace_them(desk: DocumentDesk) -> None:
    desk.worker().ready()
    key = desk.sample("lease.pdf")
    assert desk.result(desk.add(key))["unchanged"] is False
    (read_at,) = desk.rows("SELECT read_at FROM document")
    assert desk.result(desk.add(key))["unchanged"] is True
    assert desk.result(desk.add(key, "another"))["unchanged"] is True
    assert desk.text("another") == desk.text("d-1")
    assert desk.rows("SELECT read_at FROM document WHERE document_id = 'd-1'") == [read_at]
    changed = desk.written("lease.pdf", b"# House rules\n\nNobody sings after ten.\n")
    assert desk.result(desk.add(changed))["mediaType"] == "text/plain"
    assert desk.text() == "# House rules\n\nNobody sings after ten."
    assert desk.rows("SELECT count(*), max(first_page) FROM document_chunk WHERE document_id = 'd-1'") == [(1, 1)]


def test_what_cannot_be_read_is_a_dead_letter_that_says_why(desk: DocumentDesk) -> None:
    worker = desk.worker(**SOON).ready()
    inflated(desk.store / desk.sample("offer.docx"), desk.store / "bomb.docx")
    jobs = {
        "DOCUMENT_MISSING": desk.add("nothing.pdf"),
        "EMPTY": desk.add(desk.written("nothing", b""), "d-2"),
        "UNSUPPORTED": desk.add(desk.written("program.pdf", b"\x7fELF" + bytes(500)), "d-3"),
        "CORRUPT": desk.add(desk.written("cut.pdf", b"%PDF-1.7\n1 0 obj\n<<"), "d-4"),
        "BOMB": desk.add("bomb.docx", "d-5"),
        "EGRESS_REFUSED": desk.add("http://169.254.169.254/latest/meta-data", "d-6"),
        "FETCH_REFUSED": desk.add("file:///etc/passwd", "d-7"),
    }
    told = {code: desk.failure(job) for code, job in jobs.items()}
    assert {reason.partition(":")[0]: code for code, reason in told.items()} == {code: code for code in told}, told
    assert "DOCUMENTS_ROOT" in told["FETCH_REFUSED"]
    assert {desk.job(job)["atm"] for job in jobs.values()} == {"1"}
    assert desk.rows("SELECT problem FROM document WHERE document_id = 'd-5' AND state = 'failed'") == [("BOMB",)]
    assert worker.metric("intelliflow_documents_total") >= len(jobs)
    assert desk.result(desk.add(desk.sample("lease.pdf"), "lease"))["state"] == "read"


def test_what_was_left_unread_is_kept_beside_what_was_read(desk: DocumentDesk) -> None:
    desk.worker().ready()
    result = desk.result(desk.add(desk.written("bomb.eml", mail_with_bomb())))
    assert (result["state"], result["warned"]) == ("read", 1)
    ((warnings,),) = desk.rows("SELECT metadata->'warnings' FROM document")
    assert "bomb.docx was not read: BOMB" in warnings[0]


def inflated(sample: Path, bomb: Path) -> None:
    """Copy a DOCX with 300 MB of blanks in its text."""
    with zipfile.ZipFile(sample) as before, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            blanks = b" " * 300_000_000 if name == "word/document.xml" else b""
            after.writestr(name, before.read(name) + blanks)


def test_a_job_without_a_tenant_names_the_field(desk: DocumentDesk) -> None:
    desk.worker().ready()
    assert desk.failure(desk.add("a.pdf", tenantId="")).startswith("INVALID_PAYLOAD: tenantId: ")


def test_a_scan_without_ocr_says_what_to_switch_on(desk: DocumentDesk) -> None:
    worker = desk.worker().ready()
    assert desk.failure(desk.add(desk.sample("scan.pdf"))) == (
        "EMPTY: its pages are pictures, which only OCR reads: set ENABLE_OCR=true"
    )
    assert worker.log.read_text().count("stage_is_off") == 1
    assert desk.client.exists(f"{OCR}:wait") == 0


@pytest.mark.timeout(120)
def test_a_scan_is_read_by_ocr_and_then_like_any_other(desk: DocumentDesk) -> None:
    worker = desk.worker(ENABLE_OCR="true").ready()
    awaited = desk.result(desk.add(desk.sample("scan.pdf")))
    assert (awaited["state"], awaited["chunks"]) == ("awaiting_ocr", None)
    desk.drained(EXTRACTION, OCR)
    assert "swollen" in desk.text()
    ((origin, reason, confidence),) = desk.rows("SELECT origin, ocr_reason, confidence FROM document_page")
    assert origin == "ocr"
    assert reason
    assert confidence > 0.8
    assert desk.rows("SELECT state, chunks > 0 FROM document") == [("read", True)]
    assert worker.metric("intelliflow_document_pages_total") == 1
    assert desk.result(desk.add("scan.pdf"))["unchanged"] is True


@pytest.mark.timeout(120)
def test_a_scan_becomes_a_pdf_that_can_be_searched(desk: DocumentDesk) -> None:
    desk.worker(ENABLE_OCR="true", OCR_SEARCHABLE_PDF="true").ready()
    desk.result(desk.add(desk.sample("scan.pdf"), "letter"))
    desk.drained(EXTRACTION, OCR)
    with pypdfium2.PdfDocument(desk.store / "documents" / "t-1" / "letter" / "searchable.pdf") as book:
        assert len(book) == 1
        assert "swollen" in book[0].get_textpage().get_text_range()


@pytest.mark.timeout(120)
def test_a_killed_worker_s_document_is_read_by_another_and_leaves_nothing(desk: DocumentDesk) -> None:
    slow = {"ENABLE_OCR": "true", "OCR_DPI": "400", **QUICK}
    first = desk.worker(**slow).ready()
    desk.result(desk.add(desk.sample("scan.pdf")))
    wait_for(lambda: desk.client.llen(f"{OCR}:active"), 20, "OCR beginning")
    first.kill()
    desk.worker(**slow).ready()
    desk.drained(EXTRACTION, OCR)
    assert "swollen" in desk.text()
    assert desk.rows("SELECT count(*) FROM document_page") == [(1,)]
    assert desk.client.zcard(f"{OCR}:failed") == 0


def test_a_worker_that_is_told_to_stop_finishes_what_it_reads(desk: DocumentDesk) -> None:
    worker = desk.worker().ready()
    job = desk.add(desk.sample("lease.pdf"))
    wait_for(lambda: desk.job(job).get("ats"), 20, "the beginning")
    assert worker.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert "returnvalue" in desk.job(job)
    assert not list(desk.folder.glob("*/source"))


def test_without_a_database_results_go_to_the_object_store(redis_url: str, tmp_path: Path) -> None:
    with document_desk(redis_url, None, tmp_path) as desk:
        worker = desk.worker().ready()
        assert worker.logged("nothing can be searched")
        assert desk.result(desk.add(desk.sample("lease.pdf"), "lease/12"))["chunks"] >= 1
        place = desk.store / "documents" / "t-1" / "lease_2F12"
        record = json.loads((place / "document.json").read_text())
        assert (record["state"], record["pages"]) == ("read", 2)
        assert len((place / "pages.ndjson").read_text().splitlines()) == 2
        assert desk.result(desk.add("lease.pdf", "lease/12"))["unchanged"] is True


def test_embedding_makes_what_was_read_searchable(desk: DocumentDesk) -> None:
    desk.worker(ENABLE_EMBEDDINGS="true").ready(60)
    desk.result(desk.add(desk.sample("lease.pdf"), "lease"))
    desk.result(desk.add(desk.sample("offer.docx"), "offer"))
    desk.drained(EXTRACTION, EMBEDDING)
    desk.result(desk.add("lease.pdf", "same as lease"))
    desk.drained(EXTRACTION, EMBEDDING)
    assert desk.rows("SELECT count(*) FROM document WHERE embedded_at IS NOT NULL") == [(3,)]
    assert desk.rows("SELECT count(DISTINCT document_id) FROM document_vector") == [(3,)]
