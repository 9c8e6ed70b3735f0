"""`intelliflow outbox show`: everything that is known of one event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_ops.arguments import event_id
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.outbox.opened import Outbox, run_with_outbox
from worker_ops.output import add_output, say, write_record
from worker_runtime.bullmq.inspection import JobReport, job_report
from worker_runtime.health_board import timestamp
from worker_runtime.redaction import redact_value
from worker_runtime.redis.connection import RedisUnavailable

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_ops.outbox.store import Seen


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("show", help="show an event, its receipts, its job and what was done to it")
    parser.add_argument("event_id", metavar="EVENT_ID", type=event_id)
    parser.add_argument("--reveal", action="store_true", help="show personal data and secrets instead of masking them")
    add_output(parser)
    parser.set_defaults(command=run_with_outbox(show))


async def show(asked: argparse.Namespace, outbox: Outbox) -> ExitCode:
    """Show it; the job is left out while Redis is away."""
    seen = await outbox.view.event(asked.event_id)
    job = await _job(asked.event_id, outbox)
    if seen is None and job is None:
        raise CommandFailed(ExitCode.NOT_FOUND, f"no event {asked.event_id}, neither in the outbox nor in the archive")
    record = (_event(seen) if seen else {"eventId": asked.event_id}) | {"job": job}
    write_record(record if asked.reveal else redact_value("", record), asked.output)
    return ExitCode.OK


async def _job(job_id: str, outbox: Outbox) -> dict[str, Any] | None:
    try:
        report = await job_report(outbox.redis, outbox.queue.name, job_id)
    except RedisUnavailable as outage:
        say(f"the job is not shown: {outage}")
        return None
    return None if report is None else _job_row(report)


def _job_row(report: JobReport) -> dict[str, Any]:
    return {
        "state": report.state,
        "attempts": report.attempts,
        "failedReason": report.failed_reason,
        "added": timestamp(report.added_ms / 1000),
        "finished": timestamp(report.finished_ms / 1000) if report.finished_ms else None,
    }


def _event(seen: Seen) -> dict[str, Any]:
    if not (row := seen.row):
        return {"history": _history(seen)}
    receipts = seen.receipts or {}
    return {
        "eventId": str(row["id"]),
        "type": row["event_type"],
        "aggregate": f"{row['aggregate_type']}:{row['aggregate_id']}",
        "tenantId": row["tenant_id"],
        "sequence": row["position"],
        "standing": standing_of(seen),
        "place": row["place"],
        "error": row["last_error"],
        "retries": row["retry_count"],
        "created": row["created_at"],
        "published": receipts.get("claimed_at"),
        "processed": row["processed_at"],
        "nextRetry": row["next_retry_at"],
        "handlersDone": receipts.get("finished", []),
        "blocks": bool(receipts.get("blocks")) and receipts.get("dead_reason") is not None,
        "waitsFor": {"eventId": str(seen.waits_for["event_id"]), "standing": seen.waits_for["standing"]}
        if seen.waits_for
        else None,
        "history": _history(seen),
        "metadata": row["metadata"],
        "payload": row["payload"],
    }


def standing_of(seen: Seen) -> str:
    """Say where an event stands, in a word or two."""
    match seen.row["status"], seen.receipts:
        case "pending", _:
            return "pending"
        case "dead_letter", _:
            return "dead letter"
        case _, None:
            return "handled"
        case _:
            return "under way"


def _history(seen: Seen) -> list[dict[str, Any]]:
    return [
        {
            "at": edit["at"],
            "verb": edit["verb"],
            "by": edit["edited_by"],
            "reason": edit["reason"],
            "errorBefore": edit["error_before"],
            "payloadBefore": edit["payload_before"],
        }
        for edit in seen.history
    ]
