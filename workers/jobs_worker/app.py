"""`job_queue`: the Procrastinate app on which tasks are written and by which applications defer jobs.

@job_queue.task(queue="email", retry=Backoff())
@deadline(30)
async def send_receipt(order_id: str) -> None: ...

await send_receipt.defer_async(order_id="o-1")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from procrastinate import App, PsycopgConnector

from worker_runtime.settings import WorkerSettings, load

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

__all__ = ["JobQueueNotConfigured", "job_queue"]

CONNECT_SECONDS = 5
STATEMENT_MS = 10_000


class JobQueueNotConfigured(Exception):
    """There is no database to defer jobs to."""


def database_url() -> str:
    """Return where jobs are kept; raises `JobQueueNotConfigured`, and `SettingsError`."""
    url = load(WorkerSettings).job_queue_database_url
    if url is None:
        raise JobQueueNotConfigured(
            "JOB_QUEUE_DATABASE_URL is not set: it is the jobs database, postgresql://user:password@host:5433/jobs"
        )
    return url.get_secret_value()


class SharedConnector(PsycopgConnector):
    """Opened by an application and by the worker within it: what the last of them closes is closed.

    To open it takes no server, which may be away for now; `JobQueueNotConfigured` is raised at once.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._openers = 0

    async def open_async(self, pool: AsyncConnectionPool | None = None) -> None:
        """See Procrastinate."""
        if pool is None:
            database_url()
        await super().open_async(pool)
        self._openers += 1

    async def close_async(self) -> None:
        """See Procrastinate."""
        self._openers = max(0, self._openers - 1)
        if self._openers == 0:
            await super().close_async()


job_queue = App(
    connector=SharedConnector(
        # Read when it is needed: to import a task's module takes no database.
        conninfo=database_url,
        kwargs={
            "application_name": "intelliflow job queue",
            "connect_timeout": CONNECT_SECONDS,
            "keepalives_idle": 10,
            "keepalives_interval": 3,
            "keepalives_count": 3,
            "options": f"-c statement_timeout={STATEMENT_MS}",
        },
        # None in advance: neither an application nor a deferral waits for more than its own connection.
        min_size=0,
        max_size=4,
        timeout=CONNECT_SECONDS,
        # Whoever defers next tries anew. The pool's own patience grows to minutes, in which it refuses everybody.
        reconnect_timeout=1.0,
    ),
    import_paths=["jobs_worker.tasks"],
)
