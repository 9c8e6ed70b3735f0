"""An ingestion-worker as the process it is, the store its documents come from, and what became of their jobs."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import redis

from worker_runtime.bullmq.names import QueueName
from worker_runtime.bullmq.producer import JobQueue, NewJob
from worker_runtime.redis.connection import RedisConnection
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(__file__).parents[1] / "shared" / "embedded_stack" / "samples"
EXTRACTION, OCR, EMBEDDING = (
    f"intelliflow:{name}" for name in ("text-extraction", "ocr-processing", "embedding-generation")
)

JOB_ID = re.compile(r"(j-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOTED = """
CREATE TABLE written (document_id text, number int, origin text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO written VALUES (new.document_id, new.number, new.origin); RETURN new; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON document_page FOR EACH ROW EXECUTE FUNCTION note();
"""


@dataclass
class DocumentDesk:
    """`store` is the folder behind STORAGE_URL."""

    redis_url: str
    database_url: str | None
    folder: Path
    store: Path
    client: redis.Redis
    processes: list[Process] = field(default_factory=list)

    def worker(self, **environment: str) -> Process:
        """Start a worker; the caller waits until it is ready, if that matters."""
        given = {"REDIS_URL": self.redis_url, "STORAGE_URL": str(self.store), "DOCUMENT_WORK_DIR": str(self.folder)}
        if self.database_url:
            given["DATABASE_URL"] = self.database_url
        log = self.folder / f"worker-{len(self.processes)}.log"
        self.processes.append(Process("ingestion_worker", {**given, **environment}, log))
        return self.processes[-1]

    def sample(self, name: str) -> str:
        """Put a sample into the store and return its key."""
        shutil.copy(SAMPLES / name, self.store / name)
        return name

    def written(self, name: str, content: bytes) -> str:
        (self.store / name).write_bytes(content)
        return name

    def add(self, source: str, document: str = "d-1", queue: str = EXTRACTION, **more: Any) -> str:
        """Add a job as a producer would."""
        data = {"documentId": document, "tenantId": "t-1", "sourceUrl": source, **more}

        async def added() -> str:
            connection = RedisConnection(self.redis_url, client_name="producer")
            await connection.open()
            try:
                name = QueueName("intelliflow", queue.rpartition(":")[2])
                return await JobQueue(connection, name).add(NewJob("read", data, job_id=f"j-{uuid4()}"))
            finally:
                await connection.close()

        return asyncio.run(added())

    def job(self, job_id: str, queue: str = EXTRACTION) -> dict[str, str]:
        found: Any = self.client.hgetall(f"{queue}:{job_id}")
        return {name.decode(): value.decode() for name, value in found.items()}

    def ended(self, job_id: str, queue: str = EXTRACTION, within: float = 40) -> dict[str, str]:
        """Wait for a job's end, good or bad."""
        try:
            wait_for(lambda: "finishedOn" in self.job(job_id, queue), within, f"the end of {job_id}")
        except TimeoutError as error:
            raise AssertionError(self.tail()) from error
        return self.job(job_id, queue)

    def result(self, job_id: str, queue: str = EXTRACTION, within: float = 40) -> dict[str, Any]:
        job = self.ended(job_id, queue, within)
        assert "returnvalue" in job, job
        assert len(job["returnvalue"]) < 4096
        result: dict[str, Any] = json.loads(job["returnvalue"])
        return result

    def failure(self, job_id: str, queue: str = EXTRACTION, within: float = 40) -> str:
        job = self.ended(job_id, queue, within)
        assert "failedReason" in job, job
        return job["failedReason"]

    def drained(self, *queues: str, within: float = 60) -> None:
        """Wait until nothing is left to do on the queues."""

        def nothing_is_left() -> bool:
            lists = [self.client.llen(f"{queue}:{part}") for queue in queues for part in ("wait", "active")]
            sets = [self.client.zcard(f"{queue}:{part}") for queue in queues for part in ("delayed", "prioritized")]
            return not any([*lists, *sets])

        wait_for(nothing_is_left, within, f"the end of all work: {self.tail()}")

    def known(self, queue: str) -> dict[str, dict[str, str]]:
        """Every job that the queue knows, by its id: those of producers, and those that a worker added."""
        found = (key.decode().removeprefix(f"{queue}:") for key in self.client.scan_iter(f"{queue}:*"))
        return {name: self.job(name, queue) for name in found if JOB_ID.fullmatch(name)}

    def ends(self, job_id: str, queue: str = EXTRACTION) -> list[str]:
        """Every end that the queue has told of for a job, as Node hears it."""
        told: Any = self.client.xrange(f"{queue}:events")
        mine = [fields[b"event"].decode() for _, fields in told if fields.get(b"jobId") == job_id.encode()]
        return [event for event in mine if event in ("completed", "failed")]

    def count_writes(self) -> None:
        """Have PostgreSQL note every page that is written in `written`, also one that replaces another."""
        assert self.database_url
        with psycopg.connect(self.database_url) as connection:
            connection.execute(NOTED)

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        assert self.database_url
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(question.encode()).fetchall()

    def text(self, document: str = "d-1") -> str:
        pages = self.rows(f"SELECT text FROM document_page WHERE document_id = '{document}' ORDER BY number")
        return "\n".join(text for (text,) in pages)

    def tail(self) -> str:
        return "\n".join(process.log.read_text()[-2000:] for process in self.processes if process.log.exists())


@contextmanager
def document_desk(redis_url: str, database_url: str | None, folder: Path) -> Iterator[DocumentDesk]:
    store = folder / "objects"
    store.mkdir()
    with redis.Redis.from_url(redis_url) as client:
        desk = DocumentDesk(redis_url, database_url, folder, store, client)
        try:
            yield desk
        finally:
            for process in desk.processes:
                process.end()
