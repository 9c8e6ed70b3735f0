"""Who is measured, and how a benchmark starts them: each as a process of its own, told its task by its environment."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.stopwatch import Task
from embedded_stack import RedisServer
from interop.node_packages import node_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
BODY = {
    "eventId": "0193a3c8-7d34-7000-9c1e-5f0d2b6c8a11",
    "eventType": "lead.created",
    "tenantId": "tenant_0042",
    "payload": {"leadId": "lead_000000000042", "email": "ada@example.com", "source": "web", "score": 42, "tags": ["a"]},
    "metadata": {"correlationId": "0193a3c8-7d34-7000-9c1e-5f0d2b6c8a12", "timestamp": "2026-01-01T00:00:00.000Z"},
}
MEASUREMENT_SECONDS = 300


@dataclass(frozen=True)
class Contender:
    """Somebody with a worker and a producer."""

    name: str
    command: tuple[str, ...]

    def ask(self, task: Task) -> dict[str, Any]:
        """Let it do a task and return its last line."""
        done = subprocess.run(
            self.command, env=told(task), stdout=subprocess.PIPE, check=True, timeout=MEASUREMENT_SECONDS, text=True
        )
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return figures

    @contextmanager
    def watching(self, url: str, jobs: int, **more: Any) -> Iterator[Watched]:
        """Run its worker, ready, in the block; it is killed at the end."""
        task = Task("watch", url, jobs, **{"concurrency": 50, "body": "", **more})
        began = time.monotonic()
        process = subprocess.Popen(self.command, env=told(task), stdout=subprocess.PIPE, text=True)
        try:
            yield Watched(process, began)
        finally:
            process.kill()
            process.communicate()


class Watched:
    """A worker that tells when each job begins."""

    def __init__(self, process: subprocess.Popen[str], began: float) -> None:
        self.process = process
        self._said: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._said.get(timeout=MEASUREMENT_SECONDS)
        self.ready_seconds = time.monotonic() - began

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            with contextlib.suppress(ValueError):  # A library may print lines of its own.
                self._said.put(json.loads(line))

    def arrivals(self, jobs: int, within: float = MEASUREMENT_SECONDS) -> dict[str, float]:
        """Return when each of `jobs` more began, or of those that did `within` so many seconds."""
        began: dict[str, float] = {}
        deadline = time.monotonic() + within
        with contextlib.suppress(queue.Empty):
            while len(began) < jobs:
                line = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
                began[line["job"]] = line["began"]
        return began


def told(task: Task) -> dict[str, str]:
    return {**os.environ, "TASK": json.dumps(asdict(task)), "PYTHONPATH": str(HERE.parent)}


OURS = Contender("ours", (sys.executable, str(HERE / "engine_ours.py")))
STOCK = Contender("stock Python", (sys.executable, str(HERE / "engine_stock.py")))
STOCK_ON_UVLOOP = Contender("stock, uvloop", (*STOCK.command, "uvloop"))


def contenders() -> list[Contender]:
    """Return all that can run here."""
    if not (shutil.which("node") and shutil.which("npm")):
        sys.stderr.write("left out: Node (node and npm not found)\n")
        return [STOCK, STOCK_ON_UVLOOP, OURS]
    node = Contender("Node", ("node", str(HERE / "engine_node.mjs"), str(node_packages())))
    return [STOCK, STOCK_ON_UVLOOP, node, OURS]


@contextmanager
def fresh_redis(*, durable: bool = False) -> Iterator[RedisServer]:
    """Run a new server in the block."""
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder), durable=durable) as server:
        yield server


def taking_turns(everybody: list[Contender], turns: int) -> Iterator[Contender]:
    """Let a noisy machine hit all alike: A B C, B C A, C A B."""
    for turn in range(turns):
        yield from everybody[turn % len(everybody) :] + everybody[: turn % len(everybody)]
