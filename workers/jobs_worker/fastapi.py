"""The jobs-worker within a FastAPI application, and `job_queue` open for its requests.

app = FastAPI(lifespan=job_queue_lifespan)
app.include_router(job_queue_health)

An application with a lifespan of its own enters this one in it: `async with job_queue_lifespan(app): ...`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import structlog

try:
    from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
    from fastapi.responses import JSONResponse
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("jobs_worker.fastapi needs FastAPI: install intelliflow-workers[api]") from error

from jobs_worker.app import job_queue
from jobs_worker.settings import JobsSettings
from jobs_worker.worker import JobsWorker
from worker_runtime.embedding import embedded
from worker_runtime.health_board import timestamp
from worker_runtime.settings import load, warnings_about

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker_runtime.embedding import EmbeddedWorker

__all__ = ["job_queue_health", "job_queue_lifespan", "job_queue_ready", "job_queue_worker"]

log = structlog.get_logger()

UNAVAILABLE = 503
NO_STORE = {"Cache-Control": "no-store"}
# Where the application keeps the worker.
STATE = "job_queue_worker"


@asynccontextmanager
async def job_queue_lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open `job_queue` for deferring, and work it unless JOB_QUEUE_ENABLED is false.

    The application starts though the jobs database is away: the worker waits for it, and readiness says so. Raises
    `SettingsError`, which names each variable that is wrong. At the end jobs in hand have SHUTDOWN_TIMEOUT_MS.
    """
    settings = load(JobsSettings)
    for warning in warnings_about(settings):
        log.warning("setting_warning", warning=warning)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(job_queue.open_async())
        worker = None
        if settings.job_queue_enabled:
            worker = await opened.enter_async_context(embedded(JobsWorker, settings))
        else:
            log.warning("job_queue_worker_disabled", reason="JOB_QUEUE_ENABLED=false: jobs wait, and can be deferred")
        setattr(app.state, STATE, worker)
        yield


def job_queue_worker(app: FastAPI) -> EmbeddedWorker[JobsSettings] | None:
    """Return the worker within the application; `None` when it is switched off. Raises `RuntimeError` without one."""
    try:
        found: EmbeddedWorker[JobsSettings] | None = getattr(app.state, STATE)
    except AttributeError:
        raise RuntimeError("job_queue_lifespan is not among the lifespan of this application") from None
    return found


def unready_because(request: Request) -> str | None:
    """Say why the worker does not work; `None` while it does, or is switched off."""
    worker = job_queue_worker(request.app)
    return None if worker is None else worker.unready_because


Reason = Annotated[str | None, Depends(unready_because)]


async def job_queue_ready(reason: Reason) -> None:
    """Refuse with 503 while the worker is down: a dependency for the application's own readiness."""
    if reason is not None:
        raise HTTPException(UNAVAILABLE, reason, NO_STORE)


job_queue_health = APIRouter(tags=["health"])


@job_queue_health.get("/health/ready")
async def ready(request: Request, reason: Reason) -> JSONResponse:
    """Answer 200 while the worker works, 503 with the reason while it does not."""
    worker = job_queue_worker(request.app)
    body: dict[str, Any] = {"ready": reason is None, "timestamp": timestamp()}
    body |= {"state": "disabled"} if worker is None else {"state": worker.runtime.health.phase}
    body |= {} if reason is None else {"reason": reason}
    return JSONResponse(body, UNAVAILABLE if reason else 200, NO_STORE)
