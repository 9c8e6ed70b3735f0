"""Hostile and honest documents in turns for one real worker, and what it looked like meanwhile."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hostile_documents import KILLED, READ
from ingestion_worker.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from document_desk import DocumentDesk
    from hostile_documents import Hostile
    from worker_suite import Process

MEBIBYTE = 1 << 20
# What a container of 512 MiB leaves to each of two documents; and a single attempt, so that a kill is the job's end.
CONTAINED = {
    "DOCUMENT_TIMEOUT_MS": "10000",
    "DOCUMENT_MEMORY_BYTES": str(168 * MEBIBYTE),
    "QUEUE_CONCURRENCY": "1",
    "QUEUE_LOCK_DURATION_MS": "5000",
    "QUEUE_STALLED_INTERVAL_MS": "1000",
    "RETRY_TEXT_EXTRACTION_ATTEMPTS": "1",
}
SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Ended:
    """How a job ended: `how` is `read` or the code of its problem. Times are those of the worker's clock, in ms."""

    how: str
    began: int
    finished: int
    stalled: int

    @property
    def is_typed(self) -> bool:
        return self.how == READ or self.how in Problem.__members__

    @property
    def seconds(self) -> float:
        return (self.finished - self.began) / 1000


@dataclass(frozen=True)
class Turn:
    """A hostile document, and the honest one that waited behind it."""

    hostile: Hostile
    ended: Ended
    honest: Ended

    @property
    def seconds_after_a_kill(self) -> float:
        """Return how long after a kill the next document was done; 0 when there was none."""
        return (self.honest.finished - self.ended.finished) / 1000 if self.ended.how in KILLED else 0.0


def feed(desk: DocumentDesk, documents: Sequence[Hostile], within: float = 600) -> list[Turn]:
    """Add all of them at once, each followed by an honest one, and wait for all ends. No honest one is like another."""
    jobs = []
    for number, document in enumerate(documents):
        honest = f"Clause {number}: the rent is due on day {number + 1}."
        hostile = desk.add(desk.written(document.name, document.make()), f"hostile {number}")
        jobs.append((document, hostile, desk.add(desk.written(f"{number}.txt", honest.encode()), f"honest {number}")))
    return [Turn(one, ended(desk, job, within), ended(desk, next_job, within)) for one, job, next_job in jobs]


def ended(desk: DocumentDesk, job_id: str, within: float) -> Ended:
    job = desk.ended(job_id, within=within)
    how = json.loads(job["returnvalue"])["state"] if "returnvalue" in job else job["failedReason"].partition(":")[0]
    return Ended(how, int(job["processedOn"]), int(job["finishedOn"]), int(job.get("stc", 0)))


@dataclass
class Watch:
    """The event loop's lag in seconds, sampled, and the worker's memory before and after."""

    lags: list[float] = field(default_factory=list)
    before: int = 0
    after: int = 0

    @property
    def lag_p99(self) -> float:
        return sorted(self.lags)[len(self.lags) * 99 // 100] if self.lags else 0.0

    @property
    def grown(self) -> int:
        return self.after - self.before


@contextmanager
def watched(worker: Process) -> Iterator[Watch]:
    """Watch a worker while the block runs."""
    watch, over = Watch(before=resident_bytes(worker.popen.pid)), threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            watch.lags.append(worker.metric("intelliflow_event_loop_lag_seconds"))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
    watch.after = resident_bytes(worker.popen.pid)


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
