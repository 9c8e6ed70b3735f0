"""An ingestion-worker with some of its stages off, or with what they need missing; and what becomes of passwords."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

from document_desk import EMBEDDING, EXTRACTION, OCR, DocumentDesk, document_desk
from held_stages import WORDS, prose, scanned
from scans import pdf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)
PASSWORD = "Sesame-open-77"


@pytest.fixture
def desk(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[DocumentDesk]:
    with document_desk(redis_url, database_url, tmp_path) as made:
        yield made


def test_nothing_is_enqueued_for_a_stage_that_is_off(desk: DocumentDesk) -> None:
    worker = desk.worker().ready()
    for about in ("doors", "walls"):
        key = desk.written(f"{about}.txt", prose(about, 3))
        desk.result(desk.add(key, about, options={"generateEmbeddings": True}))
    desk.result(desk.add(desk.sample("lease.pdf"), "lease"))
    assert worker.log.read_text().count('"stage_is_off"') == 1
    assert worker.logged("ENABLE_EMBEDDINGS=true")
    assert not desk.known(OCR)
    assert not desk.known(EMBEDDING)


def test_embeddings_are_left_out_where_a_job_does_not_want_them(desk: DocumentDesk) -> None:
    desk.worker(ENABLE_EMBEDDINGS="true").ready(60)
    desk.result(desk.add(desk.sample("lease.pdf"), options={"generateEmbeddings": False}))
    assert not desk.known(EMBEDDING)


def test_each_stage_may_have_workers_of_its_own(desk: DocumentDesk) -> None:
    scan = desk.add(desk.written("scan.pdf", scanned(2)), queue=OCR)
    extract = desk.add(desk.sample("lease.pdf"), "lease", options={"generateEmbeddings": True})
    reads = desk.worker(ENABLE_TEXT_EXTRACTION="false", ENABLE_OCR="true", OCR_DPI="100").ready()
    assert desk.result(scan, OCR)["ocrPages"] == 2
    assert WORDS[1] in desk.text()
    assert "finishedOn" not in desk.job(extract)
    assert reads.logged('"queue": "intelliflow:text-extraction"')
    embed = desk.add("unused", queue=EMBEDDING)
    desk.worker(ENABLE_TEXT_EXTRACTION="false", ENABLE_EMBEDDINGS="true").ready(60)
    assert desk.result(embed, EMBEDDING)["embedded"] >= 1
    assert "finishedOn" not in desk.job(extract)


def refused(desk: DocumentDesk, **environment: str) -> str:
    """Start what cannot start, and return its log."""
    worker = desk.worker(**environment)
    assert worker.popen.wait(40) == 1
    log = worker.log.read_text()
    assert "Traceback" not in log
    assert '"exitCode": 1' in log
    return log


def test_a_start_without_what_it_needs_says_what_that_is(desk: DocumentDesk, tmp_path: Path) -> None:
    assert "DATABASE_URL is not set, and ENABLE_EMBEDDINGS needs it" in refused(
        desk, ENABLE_EMBEDDINGS="true", DATABASE_URL=""
    )
    (tmp_path / "file").touch()
    log = refused(desk, DOCUMENT_WORK_DIR=str(tmp_path / "file"))
    assert '"bad_setting"' in log
    assert "DOCUMENT_WORK_DIR: nothing can be worked on there" in log
    assert "TESSERACT_CMD" in refused(desk, ENABLE_OCR="true", TESSERACT_CMD=str(tmp_path / "file"))
    assert desk.database_url
    with psycopg.connect(desk.database_url) as connection:
        connection.execute("DROP TABLE document_vector")
    log = refused(desk, ENABLE_EMBEDDINGS="true")
    assert "ENABLE_EMBEDDINGS=true: the database has no place for vectors: install pgvector" in log


@pytest.mark.parametrize("ocr", ["false", "true"])
def test_a_password_is_nowhere_but_in_the_jobs(desk: DocumentDesk, ocr: str) -> None:
    worker = desk.worker(ENABLE_OCR=ocr, OCR_DPI="100", LOG_LEVEL="debug").ready()
    key = desk.written("locked.pdf", pdf("Our secret recipe for bread", "", password=PASSWORD))
    asked = {"password": PASSWORD, "ocr": "always" if ocr == "true" else "never"}
    job = desk.add(key, options=asked)
    wrong = desk.add(key, "wrong", options={**asked, "password": f"{PASSWORD}-or-not"})
    without = desk.add(key, "without", options={"ocr": asked["ocr"]})
    desk.result(job)
    desk.drained(EXTRACTION, OCR)
    assert "bread" in desk.text()
    assert desk.failure(wrong).startswith("ENCRYPTED")
    # Even though somebody with the password has had the same file read.
    assert desk.failure(without).startswith("ENCRYPTED")
    assert not worker.logged("Sesame")
    assert PASSWORD not in told_by(desk)
    for table in ("document", "document_page", "document_chunk"):
        assert desk.rows(f"SELECT count(*) FROM {table} WHERE {table}::text LIKE '%Sesame%'") == [(0,)]
    assert len(desk.known(OCR)) == (1 if ocr == "true" else 0)
    assert "Sesame" not in shown_dead_letters(desk)


def told_by(desk: DocumentDesk) -> str:
    """All that the queues hold but the data of jobs, which their producers wrote."""
    jobs = [job for queue in (EXTRACTION, OCR) for job in desk.known(queue).values()]
    fields = [value for job in jobs for name, value in job.items() if name != "data"]
    events = [desk.client.xrange(f"{queue}:events") for queue in (EXTRACTION, OCR)]
    return repr((fields, events))


def shown_dead_letters(desk: DocumentDesk) -> str:
    assert desk.database_url
    command = [sys.executable, "-m", "worker_ops", "dlq"]
    environment = {**os.environ, "REDIS_URL": desk.redis_url, "DATABASE_URL": desk.database_url}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "ENCRYPTED" in answer.stdout
    return answer.stdout + answer.stderr
