"""An isolation with hostile tasks, and a look at what they leave behind."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hostile_tasks
from ingestion_worker.isolation import linux
from ingestion_worker.isolation.isolation import opened_isolation
from ingestion_worker.isolation.settings import IsolationSettings
from ingestion_worker.problem import DocumentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ingestion_worker.isolation.isolation import Isolation
    from worker_runtime.document_metrics import IsolationMetrics

HERE = Path(__file__).parent
MEBIBYTE = 1 << 20
TASKS = {
    **{name: f"hostile_tasks:{name}" for name, value in vars(hostile_tasks).items() if callable(value)},
    "without a module": "no_such_module:task",
    "without a function": "hostile_tasks:no_such_task",
    "with a broken module": "broken_task:task",
}


def isolation_settings(work_dir: Path, **given: Any) -> IsolationSettings:
    """Return settings with small limits."""
    chosen: dict[str, Any] = {
        "redis_url": "redis://unused",
        "health_port": 0,
        "document_work_dir": work_dir,
        "document_memory_bytes": 192 * MEBIBYTE,
        "document_output_bytes": 4 * MEBIBYTE,
        "document_slots": 2,
        **given,
    }
    return IsolationSettings(**chosen)


@asynccontextmanager
async def hostile_isolation(
    work_dir: Path, metrics: IsolationMetrics | None = None, **given: Any
) -> AsyncIterator[Isolation]:
    """Open an isolation with hostile tasks; neither process nor folder of it may be there afterwards."""
    settings = isolation_settings(work_dir, **given)
    async with opened_isolation(settings, metrics, tasks=TASKS, import_from=[HERE]) as isolation:
        yield isolation
    assert processes_in(work_dir) == []
    assert folders_in(work_dir) == []


async def end_of(isolation: Isolation, task: str, seconds: float = 30.0, **order: Any) -> str:
    """Run a task in a folder of its own; return how it ended: `ok`, or the problem and its sentence."""
    async with isolation.working_folder() as folder:
        try:
            await isolation.run(task, order, folder, seconds=seconds)
        except DocumentError as error:
            return str(error)
    return "ok"


async def result_of(isolation: Isolation, task: str, **order: Any) -> dict[str, Any]:
    """Run a task in a folder of its own; return its result."""
    async with isolation.working_folder() as folder:
        return await isolation.run(task, order, folder, seconds=30.0)


async def server_pid(isolation: Isolation) -> int:
    """Return the fork server that would get the next order."""
    return (await isolation._keeper.server()).pid


def processes_in(work_dir: Path) -> list[int]:
    """Return the living processes whose working folder is below `work_dir`."""
    return [pid for pid in linux.processes() if works_in(pid, work_dir)]


def works_in(pid: int, work_dir: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(work_dir)
    except OSError:
        return False


def folders_in(work_dir: Path) -> list[Path]:
    """Return the folders of workers."""
    return list(work_dir.glob("*/worker-*"))


def documents_in(work_dir: Path) -> list[Path]:
    """Return the folders of documents."""
    return list(work_dir.glob("*/worker-*/document-*"))


async def become_true(condition: Callable[[], bool], within: float = 30.0) -> None:
    """Ask until it is so; what goes on in other processes tells nobody."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)  # See above.
