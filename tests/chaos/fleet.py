"""Some workers of a kind, each the process that it is in production."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from worker_suite import Process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from chaos.history import Pen

TESTS = Path(__file__).parents[1]
DRAINED = 128 + signal.SIGTERM


class Fleet:
    """Starts workers and does things to them; a worker that somebody is at is left alone by others."""

    def __init__(
        self, size: int, environment: Mapping[str, str], folder: Path, pen: Pen, package: str = "events_worker"
    ) -> None:
        self._pen = pen
        self._busy: set[Process] = set()
        self._lock = threading.Lock()
        # Ends that nobody asked for.
        self.surprises: list[str] = []
        surroundings = {**environment, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
        self.workers = [Process(package, surroundings, folder / f"worker-{n}.log") for n in range(size)]

    def __enter__(self) -> Self:
        for worker in self.workers:
            worker.ready(60)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()

    def pick(self, chance: Random) -> Process | None:
        """Return a worker that nobody is at, unless it were the last one."""
        with self._lock:
            free = [worker for worker in self.workers if worker not in self._busy]
        return chance.choice(free) if len(free) > 1 else None

    def kill(self, worker: Process) -> None:
        """SIGKILL."""
        self._look_at(worker)
        worker.kill()
        self._pen.tell("killed", pid=worker.popen.pid)

    def restart(self, worker: Process) -> None:
        """Start it again."""
        worker.restart()
        self._pen.tell("started", pid=worker.popen.pid)

    def freeze(self, worker: Process, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a time that is longer than its locks and leases live."""
        self._occupy(worker)
        pid = worker.popen.pid
        worker.popen.send_signal(signal.SIGSTOP)
        self._pen.tell("frozen", pid=pid)
        time.sleep(seconds)  # For this is the fault.
        self._pen.tell("thawed", pid=pid)
        worker.popen.send_signal(signal.SIGCONT)
        self._release(worker)

    def replace(self, worker: Process) -> None:
        """SIGTERM, wait for the end, start the next."""
        self._occupy(worker)
        self._look_at(worker)
        pid = worker.popen.pid
        code = worker.stop()
        self._pen.tell("stopped", pid=pid, note=str(code))
        self.restart(worker)
        self._release(worker)

    def disband(self) -> None:
        """Stop all of them, politely; whoever does not end well is a surprise."""
        for worker in self.workers:
            # One that has only just been started would not know the signal yet.
            worker.ready(60)
        for worker in self.workers:
            worker.popen.send_signal(signal.SIGTERM)
        for worker in self.workers:
            if (code := worker.popen.wait(40)) != DRAINED:
                self.surprises.append(f"{worker.log}: exit code {code} after SIGTERM")

    def _look_at(self, worker: Process) -> None:
        if (code := worker.popen.poll()) is not None:
            self.surprises.append(f"{worker.log}: ended by itself with {code}")

    def _occupy(self, worker: Process) -> None:
        with self._lock:
            self._busy.add(worker)

    def _release(self, worker: Process) -> None:
        with self._lock:
            self._busy.discard(worker)
