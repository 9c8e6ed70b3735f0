"""`intelliflow workflow show`: all that is known of one execution, and its timeline in words or as a picture."""

from __future__ import annotations

import sys
from datetime import MAXYEAR
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, at, say, write_record
from worker_ops.servers import command_over
from worker_ops.workflow.executions_store import ExecutionsStore
from worker_ops.workflow.given_json import stored_json
from worker_ops.workflow.selecting import execution_id, execution_row
from worker_ops.workflow.timeline import timeline_of
from worker_ops.workflow.timeline_svg import picture
from worker_ops.workflow.timeline_text import drawn
from worker_runtime.redaction import redact_value

if TYPE_CHECKING:
    import argparse
    from datetime import datetime

    from worker_ops.arguments import Commands


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("show", help="show an execution, every attempt of every step, and what it waits for")
    parser.add_argument("execution_id", metavar="EXECUTION_ID", type=execution_id)
    parser.add_argument("--svg", metavar="FILE", type=Path, help="write its timeline as a picture, too")
    parser.add_argument("--reveal", action="store_true", help="show input, outputs, and personal data unmasked")
    add_output(parser)
    parser.set_defaults(command=command_over(ExecutionsStore, _show))


async def _show(asked: argparse.Namespace, store: ExecutionsStore) -> ExitCode:
    row = await store.one(asked.execution_id)
    if row is None:
        raise CommandFailed(ExitCode.NOT_FOUND, f"nothing is known of an execution {asked.execution_id}")
    steps = await store.steps(asked.execution_id)
    timeline = timeline_of(row, steps, reveal=asked.reveal)
    record = _record(row, reveal=asked.reveal) | {
        "waitsFor": [_wait(wait) for wait in await store.waits(asked.execution_id)],
        "children": [_child(child) for child in await store.children(asked.execution_id)],
    }
    if asked.output != "table":
        record["steps"] = [_step(step, reveal=asked.reveal) for step in steps]
    write_record(record if asked.reveal else redact_value("", record), asked.output)
    if asked.output == "table":
        sys.stdout.write(f"\n{drawn(timeline)}")
    if asked.svg is not None:
        _write(asked.svg, picture(timeline))
    return ExitCode.OK


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(ExitCode.FAILED, f"{path}: {error.strerror}") from error
    say(f"{path}: its timeline as a picture")


def _record(row: Any, *, reveal: bool) -> dict[str, Any]:
    running = row["status"] == "running"
    record = execution_row(row) | {
        "ruleId": row["rule_id"] and str(row["rule_id"]),
        "retriesSinceProgress": row["retry_count"],
        "workersLostSinceProgress": row["crash_count"],
        "round": row["round"],
        "started": at(row["started_at"]),
        "ready": _due(row["ready_at"]) if row["status"] in {"queued", "waiting", "retry_pending"} else None,
        "leaseOwner": row["lease_owner"],
        "leaseToken": row["lease_token"],
        "leaseUntil": at(row["ready_at"]) if running else None,
        "heartbeat": at(row["heartbeat_at"]),
        "cancelRequested": at(row["cancel_requested_at"]),
        "key": row["idempotency_key"],
        "parentId": row["parent_id"] and str(row["parent_id"]),
        "parentStep": row["parent_step"],
        "replayedFrom": row["replayed_from"],
        "messageId": row["msg_id"],
        "messageQueued": row["has_message"],
        "trace": row["trace"],
    }
    if reveal:
        record |= {"error": row["last_error"], "input": stored_json(row["input"]), "result": stored_json(row["result"])}
    return record


def _due(moment: datetime) -> str | None:
    """Write when it goes on by itself; nothing for PostgreSQL's `infinity`."""
    return None if moment.year == MAXYEAR else at(moment)


def _wait(row: Any) -> dict[str, Any]:
    return {"step": row["step"], "event": row["event_name"], "correlation": row["correlation"]}


def _child(row: Any) -> dict[str, Any]:
    return {"executionId": str(row["id"]), "step": row["parent_step"], "status": row["status"]}


def _step(row: Any, *, reveal: bool) -> dict[str, Any]:
    finished = row["finished_at"]
    step = {
        "step": row["step"],
        "kind": row["kind"],
        "round": row["round"],
        "attempt": row["attempt"],
        "status": row["status"],
        "started": at(row["started_at"]),
        "finished": at(finished),
        "milliseconds": finished and round((finished - row["started_at"]).total_seconds() * 1000),
        "error": row["error"],
        "worker": row["worker"],
    }
    return step | ({"output": stored_json(row["output"])} if reveal else {})
