"""`job_queue`: the Procrastinate app on which tasks are written and by which applications defer jobs.

@job_queue.task(queue="email", retry=Backoff())
@deadline(30)
async def send_receipt(order_id: str) -> None: ...

await send_receipt.defer_async(order_id="o-1")
"""

from __future__ import annotations

from procrastinate import App, PsycopgConnector

from worker_runtime.settings import WorkerSettings, load

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


job_queue = App(
    connector=PsycopgConnector(
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
        min_size=1,
        max_size=4,
        timeout=CONNECT_SECONDS,
    ),
    import_paths=["jobs_worker.tasks"],
)
