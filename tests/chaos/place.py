"""A place for some workers, on servers shared with other tests, that die as a test wants it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from chaos.history import Pen, read
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chaos.history import Entry


@dataclass
class Place:
    """Addresses, a history, and the workers started here: `package` is what runs, `quick` its settings."""

    package: ClassVar[str]
    quick: ClassVar[Mapping[str, str]]

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
        self.workers.append(Process(self.package, {**self.quick, **addresses, **own, **environment}, log))
        return self.workers[-1]

    def wait_for_death(self, worker: Process) -> None:
        """Wait until it has been killed where it was doomed to be."""
        wait_for(lambda: worker.popen.poll() is not None, 30, "the crash")
        assert worker.popen.returncode == -9, worker.log.read_text()
        self.pen.tell("killed", pid=worker.popen.pid)

    def end(self) -> None:
        for worker in self.workers:
            worker.end()
