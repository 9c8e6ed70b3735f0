"""`intelliflow jobs cancel`: a job that waits never begins, and one at work is asked to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.jobs.opened import command_over_jobs
from worker_ops.jobs.retrying import Stores
from worker_ops.jobs.selecting import job_id
from worker_ops.jobs.show import not_there
from worker_ops.output import add_output, say, write_record

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.jobs.opened import JobsOperatorSettings


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("cancel", help="cancel a job that waits, or ask the worker of one at work to end it")
    parser.add_argument("job_id", metavar="ID", type=job_id)
    add_output(parser)
    command_over_jobs(parser, Stores.of, _cancel)


async def _cancel(asked: argparse.Namespace, settings: JobsOperatorSettings, stores: Stores) -> ExitCode:
    status = await stores.changes.cancel(asked.job_id)
    if status is None:
        row = await stores.jobs.one(asked.job_id, settings.silence_seconds)
        if row is None:
            raise not_there(asked.job_id)
        raise CommandFailed(ExitCode.REFUSED, f"job {asked.job_id} is over: it is {row['status']}")
    write_record({"jobId": asked.job_id, "status": status, "abortRequested": status == "doing"}, asked.output)
    if status == "doing":
        say("its worker hears of it within seconds; a function that is not async ends when it looks for it")
    return ExitCode.OK
