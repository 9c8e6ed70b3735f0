"""A place for some workflow-workers, with executions, their receiver and a verdict."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

from chaos.fleet import TESTS
from chaos.place import Place
from chaos.workflows.audit import AUDIT
from chaos.workflows.plans import NO_LEAST_LEASE, save, settle_in
from worker_suite import wait_for

if TYPE_CHECKING:
    from chaos.workflows.receiver import Receiver

# Long enough for a process that a busy machine keeps waiting, and not for the patience of whoever watches.
LEASE_SECONDS = 4
ORG = "acme"
START = "SELECT fw_workflow_start(%s, %s, %s, %s, %s)"
SETTINGS = {
    "WORKFLOW_PACKAGES": "chaos.workflows.watched",
    "EGRESS_ALLOWED_CIDRS": "127.0.0.0/8",
    "PYTHONPATH": str(TESTS),
}


class Ground(Place):
    """For workflow-workers."""

    package = "workflow_worker"
    quick = {"CHAOS_HASTE": "1", **SETTINGS}  # noqa: RUF012  as declared

    def prepare(self, receiver: Receiver) -> None:
        """Make the audit, and an organisation with a short lease."""
        self.receiver = receiver
        with psycopg.connect(self.database_url) as connection:
            connection.execute(AUDIT)
            connection.execute(NO_LEAST_LEASE)
        self.settle(ORG)

    def settle(self, organization: str) -> None:
        """Have another organisation, with every rule."""
        with psycopg.connect(self.database_url) as connection:
            settle_in(connection, [organization], LEASE_SECONDS)

    def rule(self, name: str, *steps: dict[str, Any], organization: str = ORG) -> None:
        """Save a rule of these steps."""
        with psycopg.connect(self.database_url) as connection:
            save(connection, organization, name, list(steps))

    def start(self, workflow: str, organization: str = ORG, **given: Any) -> str:
        """Start an execution; it has its own number, and the receiver's address."""
        name = str(uuid4())
        whole = {"n": name, "fails": 0, "seconds": 0.1, "receiver": self.receiver.url, **given}
        with psycopg.connect(self.database_url) as connection:
            connection.execute(START, (organization, workflow, json.dumps(whole), name, name))
        self.pen.tell("started", event=name, aggregate=organization, handler=workflow, version=whole["fails"])
        return name

    def asked(self, question: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Return the rows that answer it."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(question, arguments or None).fetchall()

    def change(self, statement: str, *arguments: object) -> None:
        """Execute it."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute(statement, arguments or None)

    def row(self, execution: str) -> dict[str, Any]:
        """Return an execution's row."""
        (found,) = self.asked("SELECT to_jsonb(e) FROM fw_workflow_executions AS e WHERE id = %s", execution)
        row: dict[str, Any] = found[0]
        return row

    def until(self, execution: str, *statuses: str, within: float = 30) -> dict[str, Any]:
        """Return the row once it has one of these statuses."""
        wait_for(lambda: self.row(execution)["status"] in statuses, within, f"{execution} being {statuses}")
        return self.row(execution)

    def told(self, execution: str, what: str) -> list[str]:
        """Return the steps of an execution of which something was told, in order."""
        return [entry.handler for entry in self.history if entry.event == execution and entry.what == what]
