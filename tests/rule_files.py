"""Rules files and events for tests, and what the one makes of the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from events_worker.event import EventJob
from events_worker.handlers.routing import planned_jobs
from events_worker.rules import load_rules
from worker_runtime.yaml_source import SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from events_worker.actions.action import PlannedJob
    from events_worker.endpoints import Endpoint
    from events_worker.rule import Rule
    from events_worker.rules import Surroundings

EVENT_ID = "0b9f4f0e-7c0c-4a55-9c56-0f6f2f3f0001"


def event(event_type: str = "lead.created", event_id: str = EVENT_ID, **payload: Any) -> EventJob:
    return EventJob.model_validate(
        {
            "eventId": event_id,
            "eventType": event_type,
            "aggregateType": "lead",
            "aggregateId": "l-1",
            "tenantId": "t-1",
            "payload": payload,
            "metadata": {"correlationId": "c-1", "timestamp": "2026-01-01T10:00:00Z", "version": 1},
            "occurredAt": "2026-01-01T10:00:00Z",
            "sequence": 1,
        }
    )


class NobodyRegistered:
    """What a database without endpoints says."""

    async def registered(self, _tenant_id: str, _event_type: str, /) -> Sequence[Endpoint]:
        return ()


def made(rules: Sequence[Rule], of: EventJob) -> list[PlannedJob]:
    return asyncio.run(planned_jobs(rules, of, NobodyRegistered()))


def rules_in(path: Path) -> list[Rule]:
    return list(load_rules(path).rules)


def notify(name: str, **changes: Any) -> str:
    """One rule in flow style, on one line; `None` leaves a key out."""
    keys = {
        "event": "lead.created",
        "channel": "EMAIL",
        "recipient": "{email: payload.email}",
        "template": "t",
        "name": name,
    } | changes
    return "{" + ", ".join(f"{key}: {value}" for key, value in keys.items() if value is not None) + "}"


def rules_file(folder: Path, rules: Sequence[str]) -> Path:
    path = folder / "rules.yaml"
    path.write_text("rules:\n" + "".join(f"  - {text}\n" for text in rules))
    return path


def refusal(path: Path, surroundings: Surroundings | None = None) -> str:
    with pytest.raises(SourceError) as error:
        load_rules(path, surroundings)
    return str(error.value)
