"""The jobs database, opened for as long as a command runs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.jobs.schema_store import SchemaStore
from worker_ops.servers import STATEMENT_SECONDS
from worker_runtime.postgres import BY_INDEX, Database
from worker_runtime.settings import Milliseconds, WorkerSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["JobsOperatorSettings", "command_over_jobs", "connected_jobs", "database_url", "opened_jobs"]

T = TypeVar("T")
NOT_SET = (
    "JOB_QUEUE_DATABASE_URL is not set, so there is no jobs database to look at; for example"
    " export JOB_QUEUE_DATABASE_URL=postgresql://postgres:postgres@localhost:5433/jobs"
)


class JobsOperatorSettings(WorkerSettings):
    """What an operator's command reads of the jobs-worker's settings, without its tasks."""

    job_queue_stalled_after_ms: Annotated[Milliseconds, Field(ge=5_000)] = Field(
        60_000, description="silence of a worker after which its jobs are given to others"
    )

    @property
    def silence_seconds(self) -> float:
        """After which a worker counts as gone."""
        return self.job_queue_stalled_after_ms / 1000


def database_url(settings: WorkerSettings) -> str:
    """Return where the jobs are; raises `CommandFailed` with an example when nobody has said so."""
    if settings.job_queue_database_url is None:
        raise CommandFailed(ExitCode.FAILED, NOT_SET)
    return settings.job_queue_database_url.get_secret_value()


@asynccontextmanager
async def connected_jobs(
    settings: WorkerSettings, statement_seconds: float = STATEMENT_SECONDS, *, by_index: bool = True
) -> AsyncIterator[Database]:
    """Connect to the jobs database, or to nothing yet: the first statement raises `DatabaseUnavailable`.

    Whoever counts everything is not `by_index`.
    """
    own = {**(BY_INDEX if by_index else {}), "jit": "off"}
    url = database_url(settings)
    async with Database(
        url, application="intelliflow jobs", settings=own, command_seconds=statement_seconds
    ) as database:
        yield database


@asynccontextmanager
async def opened_jobs(
    settings: WorkerSettings, statement_seconds: float = STATEMENT_SECONDS, *, by_index: bool = True
) -> AsyncIterator[Database]:
    """Connect to a jobs database with a current schema; raises `DatabaseUnavailable`, `SchemaOutdated`."""
    async with connected_jobs(settings, statement_seconds, by_index=by_index) as database:
        await SchemaStore(database).refuse_old()
        yield database


def command_over_jobs(
    parser: argparse.ArgumentParser,
    store: Callable[[Database], T],
    verb: Callable[[argparse.Namespace, JobsOperatorSettings, T], Awaitable[ExitCode]],
    *,
    by_index: bool = True,
) -> None:
    """Make a verb that needs nothing but a store of the jobs database the command of its parser."""

    async def run(asked: argparse.Namespace, settings: JobsOperatorSettings) -> ExitCode:
        async with opened_jobs(settings, by_index=by_index) as database:
            return await verb(asked, settings, store(database))

    parser.set_defaults(
        command=lambda asked, settings: asyncio.run(run(asked, settings)), settings_type=JobsOperatorSettings
    )
