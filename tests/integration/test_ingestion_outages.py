"""What an ingestion-worker stands on goes away in the midst of its work and comes back: nothing is lost or twice."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from document_desk import EMBEDDING, EXTRACTION, OCR, DocumentDesk, document_desk
from held_stages import (
    children_reading,
    fork_server_of,
    prose,
    reading_held,
    scanned,
    until_blocked,
    writing_held,
)
from ingestion_worker.isolation.linux import children_of
from scripted_clamd import ScriptedClamd
from worker_suite import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_stack import PostgresServer, RedisServer

pytestmark = pytest.mark.timeout(120)
QUICK = {"QUEUE_LOCK_DURATION_MS": "1000", "QUEUE_STALLED_INTERVAL_MS": "300"}
ALL_STAGES = {"ENABLE_OCR": "true", "ENABLE_EMBEDDINGS": "true", "OCR_DPI": "100"}


@pytest.fixture
def desk(own_redis: RedisServer, own_postgres: PostgresServer, tmp_path: Path) -> Iterator[DocumentDesk]:
    with document_desk(own_redis.url, own_postgres.url, tmp_path) as made:
        yield made


def put_off(desk: DocumentDesk, job: str, queue: str = EXTRACTION) -> None:
    wait_for(lambda: "deferredBecause" in desk.job(job, queue), 30, f"{job} being put off: {desk.tail()}")


def test_postgresql_goes_away_at_every_stage_and_no_attempt_is_lost(
    desk: DocumentDesk, own_postgres: PostgresServer
) -> None:
    worker = desk.worker(**ALL_STAGES).ready(60)
    text, scan = desk.written("a.txt", prose("doors", 40)), desk.written("b.pdf", scanned(3))
    job = desk.add(text, "read")
    with reading_held(worker):
        own_postgres.kill()
    put_off(desk, job)
    own_postgres.start()
    assert desk.result(job)["state"] == "read"
    desk.drained(EMBEDDING)
    desk.written("a.txt", prose("windows", 40))
    with writing_held(desk, "document_page"):
        job = desk.add(text, "stored")
        until_blocked(desk)
        own_postgres.kill()
    put_off(desk, job)
    own_postgres.start()
    assert desk.result(job)["state"] == "read"
    desk.drained(EMBEDDING)
    job = desk.add(scan, "recognised")
    desk.result(job)
    with writing_held(desk, "document_page"):
        until_blocked(desk)
        own_postgres.kill()
    (picture_job,) = desk.known(OCR)
    put_off(desk, picture_job, OCR)
    own_postgres.start()
    assert desk.result(picture_job, OCR)["state"] == "read"
    desk.drained(EMBEDDING)
    desk.written("a.txt", prose("roofs", 40))
    with writing_held(desk, "document_vector"):
        desk.result(desk.add(text, "embedded"))
        until_blocked(desk)
        own_postgres.kill()
    wait_for(
        lambda: any("deferredBecause" in one for one in desk.known(EMBEDDING).values()), 30, "embedding being put off"
    )
    own_postgres.start()
    desk.drained(EXTRACTION, OCR, EMBEDDING)
    ended = [job for queue in (EXTRACTION, OCR, EMBEDDING) for job in desk.known(queue).values()]
    assert len(ended) == 4 + 1 + 4
    assert {job.get("atm") for job in ended if "returnvalue" in job} == {"1"}, ended
    assert all("returnvalue" in job for job in ended)
    assert desk.rows("SELECT count(*) FROM document WHERE state = 'read' AND embedded_at IS NOT NULL") == [(4,)]
    assert desk.rows("SELECT count(*) FROM document_page") == [(6,)]
    assert "rafters" not in desk.text("recognised")
    assert "gutters" in desk.text("recognised")


def test_redis_goes_away_for_longer_than_a_lock_and_the_document_is_written_once(
    desk: DocumentDesk, own_redis: RedisServer
) -> None:
    desk.count_writes()
    worker = desk.worker(**QUICK, ENABLE_EMBEDDINGS="true").ready(60)
    job = desk.add(desk.written("a.txt", prose("doors", 40)))
    with reading_held(worker):
        own_redis.stop()
        time.sleep(1.5)  # Longer than the lock: what is tried here is that it has expired.
    # The document is stored, and the job of the next stage cannot be added.
    wait_for(lambda: worker.logged("job_deferred"), 30, "the job being put off")
    assert desk.rows("SELECT state FROM document") == [("read",)]
    own_redis.start()
    assert desk.result(job)["state"] == "read"
    desk.drained(EXTRACTION, EMBEDDING)
    assert desk.rows("SELECT count(*) FROM written") == [(1,)]
    assert desk.job(job)["atm"] == "1"
    assert desk.ends(job) == ["completed"]
    assert ["returnvalue" in job for job in desk.known(EMBEDDING).values()] == [True]
    assert desk.rows("SELECT count(*) FROM document WHERE embedded_at IS NOT NULL") == [(1,)]


def test_store_and_scanner_are_waited_for_without_an_attempt(redis_url: str, database_url: str, tmp_path: Path) -> None:
    clamd = tmp_path / "clamd"
    with document_desk(redis_url, database_url, tmp_path) as desk:
        desk.worker(CLAMAV_ADDRESS=str(clamd)).ready()
        key = desk.sample("lease.pdf")
        away = desk.store.rename(tmp_path / "away")
        job = desk.add(key)
        put_off(desk, job)
        away.rename(desk.store)
        promoted(desk, job)
        wait_for(lambda: "SCANNER_UNAVAILABLE" in desk.job(job)["deferredBecause"], 30, "missing the scanner")
        with scanner_at(clamd):
            promoted(desk, job)
            assert desk.result(job)["pages"] == 2
        assert desk.job(job)["atm"] == "1"


def promoted(desk: DocumentDesk, job: str) -> None:
    """Do not wait for the time that a job is put off for."""
    wait_for(lambda: desk.client.zscore(f"{EXTRACTION}:delayed", job), 20, "the delay")
    desk.client.zadd(f"{EXTRACTION}:delayed", {job: 1}, xx=True)
    desk.client.zadd(f"{EXTRACTION}:marker", {"0": 0})


@contextmanager
def scanner_at(path: Path) -> Iterator[None]:
    async def serve() -> None:
        async with ScriptedClamd(path):
            started.set()
            await asyncio.to_thread(over.wait)

    started, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    started.wait(10)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_fork_server_that_is_killed_again_and_again(redis_url: str, database_url: str, tmp_path: Path) -> None:
    with document_desk(redis_url, database_url, tmp_path) as desk:
        worker = desk.worker(RETRY_TEXT_EXTRACTION_DELAYS_MS="50").ready()
        jobs = [desk.add(desk.written(f"{n}.txt", prose(str(n), 300)), f"d-{n}") for n in range(6)]
        for killed in range(10):
            server = fork_server_of(worker)
            if killed < 6:
                wait_for(lambda: children_reading(worker), 20, "a child that reads", every=0.001)
            os.kill(server, signal.SIGKILL)
            wait_for(lambda old=server: old not in children_of(worker.popen.pid), 20, "its burial")  # type: ignore[misc]
        ends = [desk.ended(job) for job in jobs]
        codes = {job["failedReason"].partition(":")[0] for job in ends if "returnvalue" not in job}
        assert codes <= {"OOM", "CRASH"}
        assert any("failedReason" in job or int(job["atm"]) > 1 for job in ends)
        assert worker.status("/health/ready") == 200
        assert worker.metric("intelliflow_isolation_server_restarts_total") >= 6
        assert desk.result(desk.add(desk.sample("lease.pdf"), "after"))["state"] == "read"


def test_a_full_disk_is_said_and_survived(redis_url: str, database_url: str, tmp_path: Path) -> None:
    with document_desk(redis_url, database_url, tmp_path) as desk:
        worker = desk.worker(RETRY_TEXT_EXTRACTION_DELAYS_MS="50").ready()
        limits = resource.prlimit(worker.popen.pid, resource.RLIMIT_FSIZE)
        # As on a disk with so much room: no file may grow beyond.
        resource.prlimit(worker.popen.pid, resource.RLIMIT_FSIZE, (200_000, limits[1]))
        large = desk.add(desk.written("large.txt", prose("doors", 5000)))
        wait_for(lambda: "failedReason" in desk.job(large), 20, "the large one")
        assert desk.job(large)["failedReason"].startswith("DISK_FULL: ")
        assert desk.result(desk.add(desk.sample("lease.pdf"), "small"))["state"] == "read"
        resource.prlimit(worker.popen.pid, resource.RLIMIT_FSIZE, limits)
        promoted(desk, large)
        assert desk.result(large)["state"] == "read"
