"""One attempt of one job: run its task within its deadline, and say how that ended."""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from procrastinate.exceptions import JobAborted, TaskNotFound
from procrastinate.job_context import AbortReason, JobContext
from procrastinate.middleware import compose, is_async_middleware

from jobs_worker.backoff import Backoff
from jobs_worker.deadline import deadline_of
from jobs_worker.ending import Ending, Later
from worker_runtime.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from procrastinate import App
    from procrastinate.tasks import Task

    from jobs_worker.ending import Claimed

__all__ = ["Attempt", "Attempts"]

MOST_ERROR = 2_000
MOST_TRACEBACK = 20_000
# Another worker may have the task already, or this one's successor will: a deployment takes minutes.
UNKNOWN_TASK = Backoff()


class DeadlineExceeded(Exception):
    """An attempt took longer than it may."""


class ExitRefused(Exception):
    """A task wanted to end the process."""


class Attempts:
    """What all attempts of a worker share. `context` is what tasks with `pass_context` get beside the job."""

    def __init__(self, app: App, slots: int, seconds: float, context: Mapping[str, Any]) -> None:
        self.app = app
        self.seconds = seconds
        self.context = dict(context)
        # Plain functions run here, beside the event loop.
        self.threads = ThreadPoolExecutor(slots, thread_name_prefix="task")

    def close(self) -> None:
        """Let go of the threads; one whose function does not end is left behind."""
        self.threads.shutdown(wait=False, cancel_futures=True)


class Attempt:
    """Runs once. `abort()` asks it to end early."""

    def __init__(self, claimed: Claimed, shared: Attempts) -> None:
        self.claimed = claimed
        self.began = time.time()
        # A thread that is still busy after its attempt has ended: it keeps its slot.
        self.left_behind: asyncio.Future[Any] | None = None
        self._shared = shared
        self._task = shared.app.tasks.get(claimed.job.task_name)
        self._aborted: AbortReason | None = None
        self._running: asyncio.Task[Any] | None = None

    def abort(self, reason: AbortReason) -> None:
        """Ask for an early end: an `async def` is cancelled, a function sees `context.should_abort()`."""
        if self._aborted is None:
            self._aborted = reason
            if self._running is not None and self._task is not None and is_async(self._task):
                self._running.cancel()

    async def run(self) -> Ending:
        """Return how it ended. Cancelled when it is itself cancelled: nothing is settled then."""
        try:
            self._running = asyncio.ensure_future(self._result())
            await self._running
        except BaseException as error:  # noqa: BLE001  raised again unless it says how a task may end
            return self._failed(error)
        return Ending("succeeded")

    async def _result(self) -> None:
        task = self._task
        if task is None:
            name = self.claimed.job.task_name
            raise TaskNotFound(f"this worker has no task {name}: name its package in JOB_QUEUE_PACKAGES")
        seconds = deadline_of(task.func, self._shared.seconds)
        try:
            async with asyncio.timeout(seconds) as limit:
                await (self._on_loop(task) if is_async(task) else self._in_thread(task))
        except TimeoutError:
            if limit.expired():
                raise DeadlineExceeded(f"the attempt took longer than {seconds:g} s") from None
            raise

    async def _on_loop(self, task: Task[..., Any, ...]) -> None:
        with no_exit():
            await self._composed(task)()

    async def _in_thread(self, task: Task[..., Any, ...]) -> None:
        call = no_exit()(self._composed(task))
        work = asyncio.get_running_loop().run_in_executor(self._shared.threads, call)
        try:
            result = await asyncio.shield(work)
        except asyncio.CancelledError:
            self.left_behind = work
            raise
        if inspect.isawaitable(result):
            await result

    def _composed(self, task: Task[..., Any, ...]) -> Callable[[], Any]:
        context = self._context()
        positional = [context] if task.pass_context else []
        # Those of the other kind cannot go around this task: as in Procrastinate's own worker.
        around = [one for one in task.task_middleware if is_async_middleware(one) == is_async(task)]
        return compose(around, lambda: task(*positional, **self.claimed.job.task_kwargs), context, None)

    def _context(self) -> JobContext:
        return JobContext(
            app=self._shared.app,
            worker_name="jobs-worker",
            job=self.claimed.job,
            start_timestamp=self.began,
            additional_context=self._shared.context,
            abort_reason=lambda: self._aborted,
        )

    def _failed(self, error: BaseException) -> Ending:
        if isinstance(error, asyncio.CancelledError):
            if self._aborted is None:
                raise error
            return _aborted_by(self._aborted)
        if isinstance(error, JobAborted):
            return _aborted_by(self._aborted or AbortReason.USER_REQUEST)
        if isinstance(error, Later):
            return Ending("todo", costs=False, retry_at=datetime.now(UTC) + timedelta(seconds=error.seconds))
        if not isinstance(error, Exception):
            raise error
        return self._again_or_never(error)

    def _again_or_never(self, error: BaseException) -> Ending:
        sentence, lines = _sentence(error), _traceback(error)
        strategy = UNKNOWN_TASK if self._task is None else self._task.retry_strategy
        retry = strategy.get_retry_exception(error, self.claimed.job) if strategy is not None else None
        if retry is None:
            return Ending("failed", error=sentence, error_traceback=lines)
        decision = retry.retry_decision
        return Ending(
            "todo",
            retry_at=decision.retry_at,
            priority=decision.priority,
            queue=decision.queue,
            lock=decision.lock,
            error=sentence,
            error_traceback=lines,
        )


@contextmanager
def no_exit() -> Iterator[None]:
    """Let a task that wants to end the process fail instead: the event loop itself would obey."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        raise ExitRefused(f"the task raised {type(error).__name__}") from error


def is_async(task: Task[..., Any, ...]) -> bool:
    """Tell whether the task runs on the event loop."""
    found: bool = inspect.iscoroutinefunction(task.func)
    return found


def _aborted_by(reason: AbortReason) -> Ending:
    if reason is AbortReason.SHUTDOWN:
        # Its worker stops, and the next one begins at once.
        return Ending("todo", costs=False)
    return Ending("aborted", error="ABORTED: on request")


def _sentence(error: BaseException) -> str:
    said = "an error that cannot be shown"
    # A team's exception may have a broken __str__.
    with suppress(Exception):
        said = str(error)
    return storable(redact(f"{type(error).__name__}: {said}".rstrip(": ")))[:MOST_ERROR]


def _traceback(error: BaseException) -> str:
    try:
        lines = "".join(traceback.format_exception(error))
    except Exception as broken:  # noqa: BLE001  see _sentence
        lines = f"{type(broken).__name__} while its traceback was written"
    return storable(redact(lines))[-MOST_TRACEBACK:]


def storable(text: str) -> str:
    """Return a text that PostgreSQL can hold."""
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()
