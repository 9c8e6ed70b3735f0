"""The events of the first run: eight leads enter a CRM, get an owner, and two of them become customers who sign."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import psycopg
from psycopg.types.json import Jsonb

TENANT = "first-run"
OWNER = {"ownerId": "owner-1", "ownerEmail": "sam.seller@intelliflow.example", "ownerName": "Sam Seller"}
PEOPLE = (
    ("Ada", "Lovelace", "Analytical Engines"),
    ("Grace", "Hopper", "Compiler Works"),
    ("Alan", "Turing", "Bletchley Parts"),
    ("Katherine", "Johnson", "Orbit & Co"),
    ("Edsger", "Dijkstra", "Shortest Path Logistics"),
    ("Barbara", "Liskov", "Substitution Ltd"),
    ("Donald", "Knuth", "Literate Printing"),
    ("Radia", "Perlman", "Spanning Trees Nursery"),
)
CUSTOMERS = 2
INSERT = Path(__file__).with_name("insert_event.sql")


@dataclass
class SampleEvent:
    """An event, and the shipped rule that makes a mail of it (none: it is handled and that is all)."""

    event_type: str
    lead_id: str
    payload: dict[str, Any]
    rule: str | None
    id: UUID = field(default_factory=uuid4)
    committed_at: float = 0.0

    @property
    def notification_id(self) -> str | None:
        """The id its mail will carry: the same however often the event is handled."""
        return str(uuid5(self.id, self.rule)) if self.rule else None


def sample_events() -> list[SampleEvent]:
    """Make twenty-two events with new ids, eighteen of which end in a mail and two of which start a workflow."""
    return [event for number, person in enumerate(PEOPLE) for event in _life_of_a_lead(number, *person)]


def commit(database_url: str, events: list[SampleEvent]) -> None:
    """Commit each in a transaction of its own, as an application would beside its own data."""
    insert = INSERT.read_bytes()
    with psycopg.connect(database_url) as connection:
        for event in events:
            event.committed_at = time.time()
            metadata = {"correlationId": str(uuid4()), "timestamp": _now(), "version": "1.0"}
            row = [event.id, event.event_type, "Lead", event.lead_id, TENANT, Jsonb(event.payload), Jsonb(metadata)]
            connection.execute(insert, row)
            connection.commit()


def _life_of_a_lead(number: int, first: str, last: str, company: str) -> list[SampleEvent]:
    lead = f"lead-{uuid4().hex[:12]}"
    email = f"{first}.{last}@{company.split(maxsplit=1)[0]}.example".lower()
    common = {"leadId": lead, "tenantId": TENANT}
    created = {**common, "email": email, "firstName": first, "lastName": last, "company": company, "source": "website"}
    assigned = {**common, **OWNER, "assignedAt": _now(), "leadName": f"{first} {last}"}
    events = [
        SampleEvent("lead.created", lead, created, "lead-welcome"),
        SampleEvent("lead.assigned", lead, assigned, "lead-assigned-owner"),
    ]
    if number < CUSTOMERS:
        updated = {**common, "updatedAt": _now(), "changes": {"score": 90}}
        converted = {**common, **OWNER, "company": company}
        events += [
            SampleEvent("lead.updated", lead, updated, None),
            SampleEvent("lead.converted", lead, converted, "lead-converted-owner"),
            SampleEvent("contract.signed", lead, {"signedBy": email}, None),
        ]
    return events


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
