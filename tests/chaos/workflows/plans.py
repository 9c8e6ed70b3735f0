"""What is executed, and what is to come of it: the rules of every organisation, and what their receiver shall see."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from random import Random

    import psycopg

ATTEMPTS = 5
EMAIL = {"channel": "EMAIL", "recipient": {"email": "'ann@example.org'"}, "template": "order-paid", "data": {}}
RULE = "INSERT INTO fw_workflow_rules (organization_id, name) VALUES (%s, %s) RETURNING id"
DEFINITION = "INSERT INTO fw_workflow_definitions (rule_id, version, definition) VALUES (%s, 1, %s)"
ENABLE = """
INSERT INTO fw_module_settings (organization_id, fw_execution_worker_enabled, fw_worker_visibility_timeout_seconds)
VALUES (%s, true, %s)
"""
# A lease shorter than the thirty seconds that are the least is what lets a short test see many of them end.
NO_LEAST_LEASE = "ALTER TABLE fw_module_settings DROP CONSTRAINT fw_worker_visibility_timeout_range"


def http(step: str, **body: Any) -> dict[str, Any]:
    """A step that asks the receiver; `body` says how it is to go, in expressions."""
    asked = {"execution": "execution.id", "step": f"'{step}'", **body}
    kind = {"method": "POST", "url": "{{ input.receiver }}", "json": asked}
    return {"id": step, "http": kind, "retry": {"attempts": ATTEMPTS, "delaysMs": [100, 200]}}


def call(step: str, function: str, **arguments: Any) -> dict[str, Any]:
    """A step that calls one of the watched functions."""
    return {"id": step, "call": {"function": f"chaos.{function}", "arguments": arguments}}


CHILD = "chaos.child"
APPROVED = {"event": "chaos.approved", "correlation": "input.n"}
WAIT = {"id": "pause", "wait": {"seconds": "input.seconds"}}
NOTIFY = {"id": "told", "notify": EMAIL}
BOTH = {
    "id": "both",
    "parallel": {
        "branches": [
            [http("left"), {"id": "sum", "set": {"sum": "input.fails + 1"}}],
            [http("flaky", fails="input.fails"), http("right")],
        ]
    },
}
DEFINITIONS: dict[str, list[dict[str, Any]]] = {
    "chaos.order": [http("first"), WAIT, BOTH, NOTIFY, http("last")],
    "chaos.approval": [http("first"), {"id": "ok", "wait_for_event": APPROVED}, http("last", fails="input.fails")],
    "chaos.family": [
        http("first"),
        {"id": "child", "workflow": {"start": CHILD, "input": "input"}},
        NOTIFY,
        http("last"),
    ],
    CHILD: [http("first", fails="input.fails"), WAIT, http("last")],
    "chaos.doomed": [http("first", fails="input.fails"), http("never", fails=-1), http("last")],
    "chaos.refused": [http("first"), http("never", refused=True), http("last")],
}


@dataclass(frozen=True, slots=True)
class Kind:
    """What comes of an execution that nobody interferes with.

    `effects` are the steps that the receiver sees; `fails` those of them that fail as often as the input says; `tried`
    how often the last one is tried that never succeeds.
    """

    ends: str
    effects: tuple[str, ...]
    fails: str = ""
    tried: int = 0
    notifies: int = 0
    waits_for_event: bool = False


KINDS: dict[str, Kind] = {
    "chaos.order": Kind("completed", ("first", "left", "flaky", "right", "last"), "flaky", notifies=1),
    "chaos.approval": Kind("completed", ("first", "last"), "last", waits_for_event=True),
    "chaos.family": Kind("completed", ("first", "last"), notifies=1),
    CHILD: Kind("completed", ("first", "last"), "first"),
    "chaos.doomed": Kind("failed", ("first",), "first", tried=ATTEMPTS),
    "chaos.refused": Kind("failed", ("first",), tried=1),
    "chaos.code": Kind("completed", ("first", "flaky", "last"), "flaky", waits_for_event=True),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One execution to be."""

    id: str
    organization: str
    workflow: str
    given: dict[str, Any] = field(default_factory=dict)


def planned(chance: Random, organizations: int, receiver_url: str) -> Plan:
    """Draw one."""
    name = str(uuid_of(chance))
    fails = chance.choices((0, 1, 2, 4), (60, 20, 15, 5))[0]
    seconds = round(chance.uniform(0, 1.0), 2)
    workflow = chance.choice([one for one in KINDS if one != CHILD])
    given = {"n": name, "fails": fails, "seconds": seconds, "receiver": receiver_url}
    return Plan(name, f"org-{chance.randrange(organizations)}", workflow, given)


def uuid_of(chance: Random) -> UUID:
    """Draw an id, the same for the same seed."""
    return UUID(int=chance.getrandbits(128), version=4)


def settle_in(connection: psycopg.Connection[Any], organizations: list[str], lease_seconds: int) -> None:
    """Enable organisations, each with every rule."""
    for organization in organizations:
        connection.execute(ENABLE, (organization, lease_seconds))
        for name, steps in DEFINITIONS.items():
            save(connection, organization, name, steps)


def save(connection: psycopg.Connection[Any], organization: str, name: str, steps: list[dict[str, Any]]) -> None:
    """Save a rule."""
    row = connection.execute(RULE, (organization, name)).fetchone()
    assert row
    output = {"name": name, "steps": steps}
    connection.execute(DEFINITION, (row[0], json.dumps(output)))
