"""`intelliflow jobs retry`: one job begins again, with all its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.jobs.changing_store import ChangingStore, LockTaken
from worker_ops.jobs.jobs_store import JobsStore
from worker_ops.jobs.opened import command_over_jobs
from worker_ops.jobs.selecting import job_id
from worker_ops.jobs.show import not_there
from worker_ops.output import add_output, write_record

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.jobs.opened import JobsOperatorSettings
    from worker_runtime.postgres import Database


class Stores(NamedTuple):
    """What verbs look into, and by what they change it."""

    jobs: JobsStore
    changes: ChangingStore

    @classmethod
    def of(cls, database: Database) -> Stores:
        """Return both, of one database."""
        return cls(JobsStore(database), ChangingStore(database))


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("retry", help="let a job begin again: one that is over, or whose worker has vanished")
    parser.add_argument("job_id", metavar="ID", type=job_id)
    parser.add_argument("--force", action="store_true", help="though it has succeeded: it does everything once more")
    add_output(parser)
    command_over_jobs(parser, Stores.of, _retry)


async def _retry(asked: argparse.Namespace, settings: JobsOperatorSettings, stores: Stores) -> ExitCode:
    silence = settings.silence_seconds
    before = await stores.jobs.one(asked.job_id, silence)
    if before is None:
        raise not_there(asked.job_id)
    try:
        done = await stores.changes.retry(asked.job_id, silence, force=asked.force)
    except LockTaken as taken:
        sentence = f"another job with its queueing lock {before['queueing_lock']} waits already, and only one may"
        raise CommandFailed(ExitCode.REFUSED, sentence) from taken
    if not done:
        raise CommandFailed(ExitCode.REFUSED, _why_not(await stores.jobs.one(asked.job_id, silence) or before))
    write_record({"jobId": asked.job_id, "was": before["status"], "status": "todo"}, asked.output)
    return ExitCode.OK


def _why_not(row: Any) -> str:
    match row["status"]:
        case "doing":
            return (
                f"job {row['id']} is at work for {row['running_seconds']:.0f} s, and its worker {row['worker_id']} was"
                f" heard of {row['silent_seconds']:.0f} s ago: to begin it again would run it twice. Wait for it, or"
                f" `intelliflow jobs cancel {row['id']}` first"
            )
        case "succeeded":
            return f"job {row['id']} has succeeded: with --force it does everything once more"
        case status:
            return f"job {row['id']} is {status}: it begins by itself when it is due"
