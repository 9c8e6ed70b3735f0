"""An event named on the command line: a JSON file, standard input, or the id of one in the outbox."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ValidationError

from events_worker.event import EventJob
from events_worker.outbox import Unpublishable, publication
from events_worker.store import committed_event
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_runtime.outcome import DeadLetter, failed_reason
from worker_runtime.payload import decode, explain

if TYPE_CHECKING:
    from worker_runtime.postgres import Database

NOBODY = "00000000-0000-0000-0000-000000000000"


async def given_event(where: str, database: Database | None, most_bytes: int) -> EventJob:
    """Return the event; raises `CommandFailed` with what is wrong with it, and `DatabaseUnavailable`."""
    if (event_id := _as_id(where)) is not None:
        return await _from_outbox(event_id, database, most_bytes)
    return _from_text(_text(where))


def _as_id(where: str) -> UUID | None:
    try:
        return UUID(where)
    except ValueError:
        return None


async def _from_outbox(event_id: UUID, database: Database | None, most_bytes: int) -> EventJob:
    if database is None:
        raise CommandFailed(ExitCode.FAILED, "DATABASE_URL is not set, so there is no outbox to look into")
    committed = await committed_event(database, event_id, most_bytes)
    if committed is None:
        raise CommandFailed(ExitCode.NOT_FOUND, f"neither the outbox nor its archive has an event {event_id}")
    published = publication(committed, most_bytes)
    if isinstance(published, Unpublishable):
        raise CommandFailed(ExitCode.FAILED, f"the relay would not publish this event: {published.reason}")
    event = decode(EventJob, published.data, most_bytes)
    if isinstance(event, DeadLetter):
        raise dead_letter(event)
    return event


def dead_letter(end: DeadLetter) -> CommandFailed:
    """Return the failure that says that no rule would be asked."""
    reason = failed_reason(end.code, end.reason)
    return CommandFailed(ExitCode.FAILED, f"the event would be a dead letter before any rule is asked: {reason}")


def _text(where: str) -> str:
    try:
        return sys.stdin.read() if where == "-" else Path(where).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CommandFailed(ExitCode.NOT_FOUND, f"there is no file {where}, and it is no id of an event") from error
    except (OSError, ValueError) as error:
        raise CommandFailed(ExitCode.FAILED, f"{where} cannot be read: {type(error).__name__}") from error


def _from_text(text: str) -> EventJob:
    try:
        written = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandFailed(ExitCode.FAILED, f"the event is not JSON: {error}") from error
    if not isinstance(written, dict):
        raise CommandFailed(ExitCode.FAILED, 'the event must be a JSON object with at least "eventType" and "payload"')
    try:
        return EventJob.model_validate(_completed(written, datetime.now(UTC)))
    except ValidationError as error:
        raise CommandFailed(ExitCode.FAILED, f"the event cannot be read: {explain(error)}") from error


def _completed(written: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Fill in what the outbox fills in for a writer, and what a rule seldom asks for."""
    payload = written.get("payload")
    tenant = payload.get("tenantId") if isinstance(payload, dict) else None
    envelope: dict[str, Any] = {
        "eventId": NOBODY,
        "aggregateType": str(written.get("eventType")).partition(".")[0] or "example",
        "aggregateId": "example",
        "tenantId": tenant or "example",
        "payload": {},
        "occurredAt": now,
    } | written
    defaults = {"correlationId": envelope["eventId"], "timestamp": envelope["occurredAt"], "version": "1.0"}
    metadata = written.get("metadata") or {}
    return envelope | {"metadata": defaults | metadata if isinstance(metadata, dict) else metadata}
