"""Who runs workflows here, and how the benchmark starts their programs and asks their tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.workflows.effects import STEPS
from benchmarks.workflows.peer_packages import peer_python
from embedded_stack.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.workflows.task import Task

HERE = Path(__file__).parent
STARTER_SECONDS = 300
PATIENCE_SECONDS = 300
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contender:
    """Somebody with a worker, which is a process, and a program that starts executions.

    `began` asks the tables when the first was claimed (seconds since 1970), `finished` how many have completed.
    """

    name: str
    worker: tuple[str, ...]
    starter: tuple[str, ...]
    began: str
    finished: str
    variables: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[int, ...] = STEPS

    def environment(self, database_url: str, effects: Path) -> dict[str, str]:
        """Return what both programs are told."""
        urls = {"DATABASE_URL": database_url, "JOB_QUEUE_DATABASE_URL": database_url}
        paths = {"PYTHONPATH": str(HERE.parents[1]), **urls, "EFFECTS": str(effects)}
        return {**os.environ, **paths, **self.variables}

    def ask(self, task: Task, database_url: str, effects: Path) -> list[Any]:
        """Let its starter do a task, and return the lines it says."""
        environment = {**self.environment(database_url, effects), "TASK": json.dumps(asdict(task))}
        done = subprocess.run(
            self.starter, env=environment, stdout=subprocess.PIPE, check=True, timeout=STARTER_SECONDS, text=True
        )
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    @contextmanager
    def at_work(self, database_url: str, redis_url: str, effects: Path) -> Iterator[AtWork]:
        """Run its worker in the block."""
        log = effects.with_suffix(".log")
        ours = {"REDIS_URL": redis_url, "HEALTH_PORT": str(free_port())}
        environment = self.environment(database_url, effects) | ours
        with log.open("ab") as output:
            process = subprocess.Popen(self.worker, env=environment, stdout=output, stderr=output)
        try:
            yield AtWork(process, log)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class AtWork:
    """A worker's process."""

    process: subprocess.Popen[bytes]
    log: Path

    def await_that(self, condition: Callable[[], bool], every: float = 0.005) -> None:
        """Raise `SystemExit` with what it said when it has ended, and when it takes too long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.process.args!r} did not do it:\n{self.log.read_text()[-4000:]}")
            time.sleep(every)

    def cpu_seconds(self) -> float:
        """Return what it has computed."""
        return cpu_seconds(self.process.pid)


def cpu_seconds(pid: int) -> float:
    """Return what a process and its descendants have computed, those included that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        children = [
            child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
        ]
    except OSError:  # It ended meanwhile, so that its parent's count has it.
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS + sum(cpu_seconds(int(child)) for child in children)


def contenders() -> list[Contender]:
    """Return all of them. Raises InstallFailedError where the peers cannot be had."""
    return [*dbos_twice(), absurd(), ours(), limit()]


def contenders_at_rest() -> list[Contender]:
    """Return those whose waiting means something: the limit is nobody's worker, and ours may be given a hint."""
    hinted = ours()
    hinted = replace(hinted, name="ours, hinted", variables={**hinted.variables, "HINT": "yes"})
    return [*dbos_twice(), absurd(), ours(), hinted]


def ours() -> Contender:
    """Return the process that a team runs."""
    return Contender(
        "ours",
        (sys.executable, "-m", "workflow_worker"),
        program("ours_starter"),
        "SELECT extract(epoch FROM min(started_at)) FROM fw_workflow_executions",
        "SELECT count(*) FROM fw_workflow_executions WHERE status = 'completed'",
        {"WORKFLOW_PACKAGES": "benchmarks.workflows.three_steps", "LOG_LEVEL": "error", "QUEUE_CONCURRENCY": "200"},
    )


def dbos_twice() -> list[Contender]:
    """Return DBOS with workflows that are coroutines, and with such as run in threads."""
    python = str(peer_python())
    return [
        Contender(
            name,
            (*program("dbos_worker", python), *arguments),
            program("dbos_starter", python),
            "SELECT min(started_at_epoch_ms) / 1000.0 FROM dbos.workflow_status",
            "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
        )
        for name, arguments in (("DBOS", ()), ("DBOS, threads", ("threads",)))
    ]


def absurd() -> Contender:
    """Return Absurd, whose SQL comes with its command `absurdctl`."""
    python = str(peer_python())
    return Contender(
        "Absurd",
        program("absurd_worker", python),
        program("absurd_starter", python),
        "SELECT extract(epoch FROM min(first_started_at)) FROM absurd.t_bench",
        "SELECT count(*) FROM absurd.t_bench WHERE state = 'completed'",
    )


def limit() -> Contender:
    """Return what PostgreSQL, asyncpg and one Python process allow."""
    return Contender(
        "limit",
        (*program("limit"), "work"),
        program("limit"),
        "SELECT extract(epoch FROM min(started_at)) FROM executions",
        "SELECT count(*) FROM executions WHERE status = 'completed'",
    )


def program(name: str, python: str = sys.executable) -> tuple[str, ...]:
    return python, str(HERE / f"{name}.py")
