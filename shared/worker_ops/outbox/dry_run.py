"""`intelliflow outbox dry-run`: what the rules would make of an event, without touching Redis."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events_worker.contracts import Accepted, Violation, load_contracts
from events_worker.effects import PlannedDeferral, PlannedJob, PlannedSignal, PlannedStart
from events_worker.endpoints import RememberedEndpoints
from events_worker.rehearsal import rehearse
from events_worker.settings import RoutingSettings
from events_worker.store import EndpointStore
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.outbox.given_event import dead_letter, given_event
from worker_ops.output import FORMATS, say, write_rows
from worker_runtime.outcome import DeadLetter
from worker_runtime.postgres import Database, DatabaseUnavailable, SchemaOutdated
from worker_runtime.redaction import MASK, redact_value
from worker_runtime.yaml_source import SourceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Sequence

    from events_worker.endpoints import Endpoint
    from events_worker.event import EventJob
    from events_worker.rehearsal import Verdict
    from events_worker.rule import Rule
    from worker_ops.arguments import Commands
    from worker_ops.output import Row

# Presigned addresses and tokens are in there.
URL_QUERY = re.compile(r"(https?://[^\s\"?#]+\?)[^\s\"#]+")
DESCRIPTION = """
Say for each routing rule whether it applies to an event, why not, and what it would make of it: jobs by queue and id,
side effects by task, workflows to start or to signal, all with their payload, redacted. Nothing is added anywhere. Exit
code 1 when the rules cannot be used or the event would be a dead letter.
"""


def register(commands: Commands) -> None:
    """Add the command to those of `intelliflow outbox`."""
    parser = commands.add_parser("dry-run", help="say what the rules would make of an event", description=DESCRIPTION)
    parser.add_argument("event", metavar="EVENT", help="a JSON file, - for standard input, or a committed event's id")
    parser.add_argument("--rules", type=Path, metavar="FILE", help="instead of EVENT_RULES_FILE or the shipped rules")
    parser.add_argument("-o", "--output", choices=FORMATS, default="table", help="how to write it (default: table)")
    parser.set_defaults(command=dry_run, settings_type=RoutingSettings)


def dry_run(asked: argparse.Namespace, settings: RoutingSettings) -> ExitCode:
    """Run the command; raises `CommandFailed`."""
    rules = _rules(settings, asked.rules)
    try:
        verdicts = asyncio.run(_verdicts(rules, asked.event, settings))
    except DatabaseUnavailable as error:
        raise CommandFailed(ExitCode.UNREACHABLE, f"cannot reach PostgreSQL: {error}") from error
    except SchemaOutdated as error:
        raise CommandFailed(ExitCode.FAILED, str(error)) from error
    _write(verdicts, settings, asked.output)
    if not any(verdict.applies == "fails" for verdict in verdicts):
        return ExitCode.OK
    say("the event would be a dead letter (RULE_FAILED), and nothing would be made of it")
    return ExitCode.FAILED


def _rules(settings: RoutingSettings, path: Path | None) -> Sequence[Rule]:
    try:
        book = settings.rule_book(path)
    except SourceError as error:
        raise CommandFailed(ExitCode.FAILED, *str(error).splitlines()) from error
    for warning in book.warnings:
        say(f"warning: {warning}")
    return book.rules


async def _verdicts(rules: Sequence[Rule], where: str, settings: RoutingSettings) -> list[Verdict]:
    async with _database(settings) as database:
        event = await given_event(where, database, settings.queue_max_payload_bytes)
        endpoints = RememberedEndpoints(EndpointStore(database)) if database else _NoEndpoints()
        return await rehearse(rules, _as_handlers_see(event), endpoints)


def _as_handlers_see(event: EventJob) -> EventJob:
    match load_contracts().read(event.event_type, event.metadata.version, event.payload):
        case Violation(code, sentence):
            raise dead_letter(DeadLetter(code, sentence))
        case Accepted(version, payload):
            return event.read_as(version, payload)


class _NoEndpoints:
    """Stands for a directory that cannot be asked."""

    async def registered(self, tenant_id: str, event_type: str, /) -> Sequence[Endpoint]:
        """Say so instead of making it look as if nobody had registered."""
        say(f"DATABASE_URL is not set: which endpoints of {tenant_id} want {event_type} is not known here")
        return ()


@asynccontextmanager
async def _database(settings: RoutingSettings) -> AsyncIterator[Database | None]:
    if settings.database_url is None:
        yield None
        return
    async with Database(settings.database_url.get_secret_value()) as database:
        await database.refuse_old_schema()
        yield database


def _write(verdicts: Sequence[Verdict], settings: RoutingSettings, how: str) -> None:
    rows = [_row(verdict, settings) for verdict in verdicts]
    if how != "table":
        write_rows(rows, how)
        return
    write_rows([{key: row[key] for key in ("rule", "applies", "why")} for row in rows], how)
    for job in (job for row in rows for job in row["jobs"]):
        _write_effect(f"{job['queue']} {job['jobId']}", job["payload"])
    for made in (made for row in rows for made in (*row["deferrals"], *row["workflows"])):
        _write_effect(" ".join(f"{key} {value}" for key, value in made.items() if key != "payload"), made["payload"])


def _write_effect(head: str, payload: Any) -> None:
    sys.stdout.write(f"\n{head}\n{json.dumps(payload, indent=2)}\n")


def _row(verdict: Verdict, settings: RoutingSettings) -> Row:
    return {
        "rule": verdict.rule.name,
        "line": verdict.rule.line,
        "applies": verdict.applies,
        "why": verdict.why,
        "jobs": [_job(planned, settings) for planned in verdict.effects if isinstance(planned, PlannedJob)],
        "deferrals": [_deferral(planned) for planned in verdict.effects if isinstance(planned, PlannedDeferral)],
        "workflows": [
            _workflow(planned) for planned in verdict.effects if isinstance(planned, PlannedStart | PlannedSignal)
        ],
    }


def _job(planned: PlannedJob, settings: RoutingSettings) -> Row:
    return {
        "queue": settings.queue_name(planned.queue).label,
        "jobId": planned.job.job_id,
        "name": planned.job.name,
        "payload": _shown(planned.job.data),
    }


def _deferral(planned: PlannedDeferral) -> Row:
    lock = {} if planned.lock is None else {"lock": planned.lock}
    delay = {"delaySeconds": planned.delay_seconds} if planned.delay_seconds else {}
    what = {"defer": planned.task, "queue": planned.queue, "priority": planned.priority, "key": planned.id}
    return {**what, **lock, **delay, "payload": _shown(planned.arguments)}


def _workflow(planned: PlannedStart | PlannedSignal) -> Row:
    if isinstance(planned, PlannedSignal):
        return {"signal": planned.event, "correlation": planned.correlation, "payload": _shown(planned.data)}
    key = {} if planned.key is None else {"key": planned.key}
    return {"start": planned.workflow, "executionId": planned.id, **key, "payload": _shown(planned.given)}


def _shown(payload: Any) -> Any:
    return _without_queries(redact_value("payload", payload))


def _without_queries(value: Any) -> Any:
    if isinstance(value, str):
        return URL_QUERY.sub(rf"\1{MASK}", value)
    if isinstance(value, dict):
        return {key: _without_queries(item) for key, item in value.items()}
    return [_without_queries(item) for item in value] if isinstance(value, list) else value
