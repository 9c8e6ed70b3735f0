"""A place for one worker or two, on servers shared with other tests, that die as a test wants it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

from chaos.events import LENIENT
from chaos.fleet import TESTS
from chaos.history import Pen, read
from chaos.rest import come_to_rest, what_is_left
from chaos.verdict import judge
from chaos.writers import INSERT
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.history import Entry
    from chaos.verdict import Verdict

# Found and taken over by others within seconds instead of a quarter of a minute.
QUICK = {
    "CHAOS_HASTE": "1",
    "CHAOS_MISHAPS": "0",
    "QUEUE_LOCK_DURATION_MS": "2000",
    "QUEUE_STALLED_INTERVAL_MS": "500",
    "RETRY_EVENTS_DELAYS_MS": "50,50",
    "EVENT_HANDLERS": "chaos.watched",
    "PYTHONPATH": str(TESTS),
}


@dataclass
class Site:
    """Addresses, a history, and the workers started here."""

    database_url: str
    redis_url: str
    folder: Path
    pen: Pen
    workers: list[Process] = field(default_factory=list)

    @property
    def history_path(self) -> Path:
        return self.folder / "history.ndjson"

    @property
    def history(self) -> list[Entry]:
        return read(self.history_path)

    def worker(self, **environment: str) -> Process:
        """Start one; it is not ready yet."""
        addresses = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}
        own = {"CHAOS_HISTORY": str(self.history_path)}
        log = self.folder / f"worker-{len(self.workers)}.log"
        self.workers.append(Process("events_worker", {**QUICK, **addresses, **own, **environment}, log))
        return self.workers[-1]

    def commit(self, aggregates: Sequence[str], events: int = 1, kind: str = LENIENT, **payload: Any) -> list[str]:
        """Commit, in one transaction, so many events of each aggregate; return their ids, aggregate by aggregate."""
        rows = [(str(uuid4()), aggregate, version) for aggregate in aggregates for version in self._next(events)]
        with psycopg.connect(self.database_url) as connection:
            for event, aggregate, version in rows:
                connection.execute(INSERT, (event, kind, aggregate, json.dumps(payload | {"version": version})))
                self.pen.tell("written", event=event, aggregate=aggregate, version=version)
                self.pen.tell("committing", event=event, aggregate=aggregate)
        for event, aggregate, _ in rows:
            self.pen.tell("committed", event=event, aggregate=aggregate)
        return [event for event, _, _ in rows]

    def _next(self, events: int) -> range:
        first = 1 + sum(entry.what == "written" for entry in self.history)
        return range(first, first + events)

    def wait_for_death(self, worker: Process) -> None:
        """Wait until it has been killed where it was doomed to be."""
        wait_for(lambda: worker.popen.poll() is not None, 30, "the crash")
        assert worker.popen.returncode == -9, worker.log.read_text()
        self.pen.tell("killed", pid=worker.popen.pid)

    def effects(self, event: str) -> dict[str, int]:
        """Count the effects of an event by handler."""
        found = [entry.handler for entry in self.history if entry.event == event and entry.what == "effect"]
        return {handler: found.count(handler) for handler in ("first", "second")}

    def verdict(self, within: float = 40) -> Verdict:
        """Wait for rest, and judge."""
        come_to_rest(self.database_url, self.redis_url, within)
        return judge(self.history, what_is_left(self.database_url, self.redis_url))

    def end(self) -> None:
        for worker in self.workers:
            worker.end()
