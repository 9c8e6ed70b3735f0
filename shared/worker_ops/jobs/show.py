"""`intelliflow jobs show`: all that is known of one job, and what each attempt died of."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.jobs.jobs_store import MOST_EVENTS, JobsStore
from worker_ops.jobs.opened import command_over_jobs
from worker_ops.jobs.selecting import job_id
from worker_ops.output import add_output, at, say, write_record
from worker_runtime.redaction import redact, redact_value

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from worker_ops.arguments import Commands
    from worker_ops.jobs.opened import JobsOperatorSettings


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("show", help="show a job, its arguments, and every attempt with its error")
    parser.add_argument("job_id", metavar="ID", type=job_id)
    parser.add_argument("--reveal", action="store_true", help="show personal data unmasked")
    add_output(parser)
    command_over_jobs(parser, JobsStore, _show)


async def _show(asked: argparse.Namespace, settings: JobsOperatorSettings, store: JobsStore) -> ExitCode:
    row = await store.one(asked.job_id, settings.silence_seconds)
    if row is None:
        raise not_there(asked.job_id)
    found = await store.events(asked.job_id)
    events = [_event(event) for event in found[-MOST_EVENTS:]]
    record = _record(row) | _last_error(events)
    if asked.output != "table":
        record["events"] = events
    write_record(record if asked.reveal else redact_value("", record), asked.output)
    if asked.output == "table":
        text = _written(events)
        sys.stdout.write(text if asked.reveal else redact(text))
    if len(found) > MOST_EVENTS:
        say(f"these are its latest {MOST_EVENTS} events, there are more")
    return ExitCode.OK


def not_there(job: int) -> CommandFailed:
    """Say that there is no such job."""
    return CommandFailed(ExitCode.NOT_FOUND, f"nothing is known of a job {job}: it may have been purged")


def _record(row: Any) -> dict[str, Any]:
    return {
        "jobId": row["id"],
        "queue": row["queue_name"],
        "task": row["task_name"],
        "status": row["status"],
        "attempts": row["attempts"],
        "priority": row["priority"],
        "created": at(row["created_at"]),
        "scheduled": at(row["scheduled_at"]),
        "started": at(row["started_at"]),
        "finished": at(row["finished_at"]),
        "stalls": row["stalls"],
        "abortRequested": row["abort_requested"],
        "worker": row["worker_id"],
        "workerAlive": row["alive"] if row["status"] == "doing" else None,
        "workerLastBeat": at(row["last_heartbeat"]),
        "lock": row["lock"],
        "queueingLock": row["queueing_lock"],
        "key": row["key"],
        "args": json.loads(row["args"]),
    }


def _last_error(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"error": next((event["error"] for event in reversed(events) if event["error"]), None)}


def _event(row: Any) -> dict[str, Any]:
    return {
        "at": at(row["at"]),
        "type": row["type"],
        "attempt": row["attempt"],
        "error": row["error"],
        "errorTraceback": row["error_traceback"],
    }


def _written(events: Sequence[dict[str, Any]]) -> str:
    return "\n" + "".join(_lines(event) for event in events)


def _lines(event: dict[str, Any]) -> str:
    attempt = f" of attempt {event['attempt']}" if event["attempt"] else ""
    error = f": {event['error']}" if event["error"] else ""
    traceback = (event["errorTraceback"] or "").rstrip()
    below = "".join(f"    {line}\n" for line in traceback.splitlines())
    return f"{event['at']}  {event['type']}{attempt}{error}\n{below}"
