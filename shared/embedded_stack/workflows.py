"""The first run's workflow: begun by an event, it sends a mail, rests, and ends when another event has come."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker_ops.workflow.rules_store import RulesStore
from worker_runtime.postgres import Database
from workflow_worker.definition import load_definition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TENANT = "first-run"
DEFINITION = Path(__file__).with_name("samples") / "onboarding.yaml"
POLL_SECONDS = 0.05
ENABLE = """
INSERT INTO fw_module_settings (organization_id, fw_execution_worker_enabled) VALUES ($1, true)
    ON CONFLICT (organization_id) DO UPDATE SET fw_execution_worker_enabled = true
"""
EXECUTIONS = """
SELECT input->'event'->>'eventId' AS event_id, id::text, status, last_error, result->>'company' AS company,
       extract(epoch FROM created_at)::float8 AS created_at,
       extract(epoch FROM started_at - created_at)::float8 AS taken_after,
       extract(epoch FROM completed_at - created_at)::float8 AS completed_after,
       (SELECT json_object_agg(step, round(1000 * extract(epoch FROM finished_at - steps.started_at)))
          FROM fw_workflow_steps AS steps WHERE execution_id = execution.id AND finished_at IS NOT NULL)::text AS steps
  FROM fw_workflow_executions AS execution
 WHERE organization_id = $1 AND input->'event'->>'eventId' = ANY ($2)
"""


@dataclass(frozen=True)
class Run:
    """An execution that an event should have started; times are seconds since it was, steps' milliseconds."""

    event_id: str
    id: str = ""
    status: str = "not started"
    last_error: str | None = None
    company: str | None = None
    created_at: float | None = None
    taken_after: float | None = None
    completed_after: float | None = None
    steps: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it has come to its end."""
        return self.status == "completed"

    @property
    def stopped_at(self) -> str:
        """Why it is not complete, in a few words."""
        remedy = f"`intelliflow workflow show {self.id}` says how far it got" if self.id else "nothing started it"
        return f"{self.status}{f' ({self.last_error})' if self.last_error else ''}; {remedy}"

    @property
    def milliseconds(self) -> Mapping[str, Any]:
        """How long each step took."""
        return json.loads(self.steps) if self.steps else {}


def prepare_workflow(database_url: str) -> None:
    """Save the definition, which may be there from an earlier run, and switch the organisation's worker on."""
    asyncio.run(_prepare(database_url))


async def _prepare(database_url: str) -> None:
    document, definition = load_definition(DEFINITION)
    trigger = definition.trigger.pattern if definition.trigger else None
    async with Database(database_url) as database:
        await RulesStore(database).save(TENANT, definition.name, trigger, json.dumps(document))
        async with database.connected() as connection:
            await connection.execute(ENABLE, TENANT)


def finished_runs(database_url: str, event_ids: Sequence[str], *, seconds: float) -> list[Run]:
    """Wait up to `seconds` for the executions that these events start to be completed."""
    return asyncio.run(_finished_runs(database_url, event_ids, time.monotonic() + seconds))


async def _finished_runs(database_url: str, event_ids: Sequence[str], deadline: float) -> list[Run]:
    async with Database(database_url) as database:
        runs = await _read(database, event_ids)
        while not all(run.is_complete for run in runs) and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            runs = await _read(database, event_ids)
    return runs


async def _read(database: Database, event_ids: Sequence[str]) -> list[Run]:
    async with database.connected() as connection:
        rows = await connection.fetch(EXECUTIONS, TENANT, list(event_ids))
    found = {row["event_id"]: Run(**dict(row)) for row in rows}
    return [found.get(event_id, Run(event_id)) for event_id in event_ids]


def table(runs: Sequence[Run]) -> str:
    """One line an execution; times are milliseconds, the first and the last since the event was handled."""
    layout = "{:<11} {:<12} {:>7} {:>8} {:>9} {:>9} {:>9}  {}".format
    lines = [layout("WORKFLOW", "STARTED BY", "TAKEN", "MAIL", "REST", "SIGNED", "ENDED", "FOR")]
    for run in runs:
        steps = run.milliseconds
        times = [_ms(run.taken_after), *(f"{steps.get(name, '-')}" for name in ("mail", "rest", "signed"))]
        ended = _ms(run.completed_after)
        lines.append(layout("onboarding", run.event_id[:8], *times, ended, run.company or run.status).rstrip())
    return "\n".join(lines)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"+{round(seconds * 1000)}"
