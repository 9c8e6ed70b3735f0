"""Runs tasks on documents in processes of their own: nothing that a document does to one reaches the worker.

async with opened_isolation(settings) as isolation, isolation.working_folder() as folder:
    result = await isolation.run("read", order, folder)
"""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from ingestion_worker.isolation import linux
from ingestion_worker.isolation.ending import result_of
from ingestion_worker.isolation.folders import FolderUnusable, WorkingFolders, opened_folders
from ingestion_worker.isolation.listener import Listener
from ingestion_worker.isolation.sandbox import REMEDY, BubblewrapMissing, server_command
from ingestion_worker.isolation.server import ForkServerKeeper, ServerStart, certainly
from ingestion_worker.isolation.task import TASKS, Limits
from ingestion_worker.isolation.wire import ForkOrder
from ingestion_worker.problem import DocumentError, Problem
from worker_runtime.document_metrics import IsolationMetrics
from worker_runtime.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from ingestion_worker.isolation.settings import IsolationSettings
    from ingestion_worker.isolation.wire import Ended

__all__ = ["Isolation", "opened_isolation"]

# What children inherit of the worker's environment; none of it is a secret.
INHERITED = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TESSDATA_PREFIX", "TZ")
# A task is one processor's work: documents are read side by side instead.
ONE_THREAD = {"OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKIO_WORKER_THREADS": "1"}
# What tasks load anyway. None of it starts a thread when it is imported.
PRELOADED = (
    *("PIL.Image", "pypdfium2", "kreuzberg", "charset_normalizer"),
    *("ingestion_worker.reading.extractors.pdf", "ingestion_worker.reading.extractors.word"),
)
# How long a child that has said its last word may take to be gone.
FAREWELL_SECONDS = 1.0


@asynccontextmanager
async def opened_isolation(
    settings: IsolationSettings,
    metrics: IsolationMetrics | None = None,
    *,
    tasks: Mapping[str, str] = TASKS,
    import_from: Sequence[Path] = (),
) -> AsyncIterator[Isolation]:
    """Start a fork server for the length of the block; children find modules in `import_from` too.

    Raises `SettingsError` where folders, processes or the sandbox are refused.
    """
    metrics = metrics or IsolationMetrics(CollectorRegistry())
    metrics.announce(tasks, (OK, CANCELLED, *Problem))
    # Children run as the same user; what they are not given they must not be able to look up.
    linux.hide_memory()
    portions = settings.portions()
    limits = Limits(settings.document_timeout_ms / 1000, portions.child_bytes, settings.document_output_bytes)
    modules = (*PRELOADED, *sorted({program.partition(":")[0] for program in tasks.values()}))
    async with AsyncExitStack() as opened:
        with refusals_explained(settings):
            folders = opened.enter_context(opened_folders(settings.document_work_dir))
            command = server_command(settings.document_sandbox, folders.root)
            keeper = ForkServerKeeper(command, modules, environment(import_from))
            await opened.enter_async_context(keeper.keeping(metrics.restarts.inc))
        yield Isolation(keeper, folders, limits, portions.slots, tasks, metrics)


class Isolation:
    """Runs tasks in children of a fork server, `slots` at once."""

    def __init__(
        self,
        keeper: ForkServerKeeper,
        folders: WorkingFolders,
        limits: Limits,
        slots: int,
        tasks: Mapping[str, str],
        metrics: IsolationMetrics,
    ) -> None:
        self.slots = slots
        self._free = asyncio.Semaphore(slots)
        self._keeper = keeper
        self._folders = folders
        self._limits = limits
        self._tasks = tasks
        self._metrics = metrics
        self._numbers = itertools.count(1)

    def working_folder(self) -> AbstractAsyncContextManager[Path]:
        """Make a new folder for a document; it is removed with all that is in it."""
        return self._folders.one()

    async def run(
        self,
        task: str,
        order: Mapping[str, Any],
        folder: Path,
        *,
        seconds: float | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Do a task in a new child, which may write to `folder` alone; return what the task returned.

        `seconds` (by default DOCUMENT_TIMEOUT_MS) begin when a slot is free. Raises `DocumentError`. When this returns,
        raises or lets a cancellation pass, nothing of what the child started is left.
        """
        limits = self._limits if seconds is None else replace(self._limits, seconds=seconds)
        request = ForkOrder(next(self._numbers), self._tasks[task], str(folder), dict(order), limits)
        async with self._slot():
            with self._counted(task):
                return await self._attempt(task, request, on_progress)

    async def _attempt(
        self, task: str, request: ForkOrder, on_progress: Callable[[int, int], None] | None
    ) -> dict[str, Any]:
        listener = Listener(on_progress)
        try:
            ended, overtime = await self._see_out(request, listener)
        finally:
            listener.close()
        self._metrics.peak_bytes.labels(task).observe(ended.peak_bytes)
        return result_of(ended, listener.said, request.limits, overtime=overtime)

    async def _see_out(self, request: ForkOrder, listener: Listener) -> tuple[Ended, bool]:
        """Fork a child, wait until nothing is left of it; return its end, and whether its time was over before."""
        server = await self._keeper.server()
        with listener.lent() as pipe:
            child = await server.fork(request, pipe)
        try:
            overtime = await ran_out_of_time(child, listener, request.limits.seconds)
        finally:
            if not child.done():
                self._metrics.kills.inc()
                await certainly(server.kill(request.number))
        return child.result(), overtime

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        with self._metrics.slot_wait.time():
            await self._free.acquire()
        try:
            with self._metrics.children.track_inprogress():
                yield
        finally:
            self._free.release()

    @contextmanager
    def _counted(self, task: str) -> Iterator[None]:
        outcome = CANCELLED
        try:
            yield
            outcome = OK
        except DocumentError as error:
            outcome = error.problem
            raise
        finally:
            self._metrics.tasks.labels(task, outcome).inc()


OK, CANCELLED = "ok", "cancelled"


async def ran_out_of_time(child: asyncio.Future[Ended], listener: Listener, seconds: float) -> bool:
    """Wait for a child's end, or for its last word and a moment more; true when neither came in time."""
    events: set[asyncio.Future[Any]] = {child, listener.settled}
    await asyncio.wait(events, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if listener.settled.done() and not listener.said.garbled:
        await asyncio.wait({child}, timeout=FAREWELL_SECONDS)
    return not (child.done() or listener.settled.done())


def environment(import_from: Sequence[Path]) -> dict[str, str]:
    """Return what the fork server is told of the worker's environment."""
    told = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**told, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(map(str, import_from))}


@contextmanager
def refusals_explained(settings: IsolationSettings) -> Iterator[None]:
    """Say what can be done about a start that was refused."""
    try:
        yield
    except FolderUnusable as error:
        raise SettingsError([f"DOCUMENT_WORK_DIR: nothing can be worked on there: {error}"]) from error
    except BubblewrapMissing as error:
        raise SettingsError([f"DOCUMENT_SANDBOX=bubblewrap: {error}"]) from error
    except ServerStart as error:
        if settings.document_sandbox == "none":
            raise
        raise SettingsError([f"DOCUMENT_SANDBOX=bubblewrap: it was refused ({error}): {REMEDY}"]) from error
