"""Producers as they are: serialised by their aggregate's row, slow, forgetful, interrupted, and now and then wrong."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from chaos.events import LENIENT, STRICT

if TYPE_CHECKING:
    from random import Random

    from chaos.history import Pen

AGGREGATES = 100
# Of them, those whose poison blocks.
STRICT_ONES = 5
HOT, HOT_SHARE = "hot", 0.1
MEGABYTE = 1_000_000
MOST_AT_ONCE = 3
# Longer would only leave more for the end.
LATE_SECONDS = (0.5, 4.0)
PATIENCE_SECONDS = 0.2
INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload)
VALUES (%s, %s, 'chaos', %s, 't-1', %s)
"""
NEXT = "UPDATE aggregate SET version = version + %s WHERE id = %s RETURNING version"


@dataclass(frozen=True)
class Plan:
    """One transaction to be."""

    aggregate: str
    events: int
    poison: bool
    huge: bool
    duplicate: bool
    late_seconds: float
    end: str


class Writer(threading.Thread):
    """Commits, rolls back and breaks off transactions until it is told to stop, faster than anybody can handle them.

    `brake` is set while enough are waiting.
    """

    def __init__(self, database_url: str, pen: Pen, chance: Random, brake: threading.Event) -> None:
        super().__init__(name="writer", daemon=True)
        self.enough = threading.Event()
        self.error: BaseException | None = None
        self._database_url = database_url
        self._pen = pen
        self._chance = chance
        self._brake = brake
        self._committed: deque[str] = deque(maxlen=50)
        self._connection: psycopg.Connection | None = None

    def run(self) -> None:
        """See `Thread`."""
        try:
            while not self.enough.is_set():
                if self._brake.is_set():
                    self.enough.wait(0.02)
                else:
                    self._carry_out(planned(self._chance))
        except BaseException as error:  # noqa: BLE001  whoever joins raises it
            self.error = error
        finally:
            if self._connection is not None:
                self._connection.close()

    def _carry_out(self, plan: Plan) -> None:
        ids = [str(uuid4()) for _ in range(plan.events)]
        connection = self._connected()
        if connection is None:
            # PostgreSQL is away; nothing has been attempted.
            self.enough.wait(PATIENCE_SECONDS)
            return
        try:
            self._write(connection, plan, ids)
        except psycopg.OperationalError:
            # Broken off before the commit: the server rolls back.
            connection.close()
            self._tell("rolled back", plan, ids)
        except psycopg.errors.UniqueViolation:
            connection.rollback()
            self._tell("rolled back", plan, ids)

    def _connected(self) -> psycopg.Connection | None:
        if self._connection is None or self._connection.closed:
            try:
                self._connection = psycopg.connect(self._database_url, connect_timeout=2)
            except psycopg.OperationalError:
                return None
        return self._connection

    def _write(self, connection: psycopg.Connection, plan: Plan, ids: list[str]) -> None:
        row = connection.execute(NEXT, (plan.events, plan.aggregate)).fetchone()
        assert row
        for version, event_id in enumerate(ids, row[0] - plan.events + 1):
            kind = STRICT if is_strict(plan.aggregate) else LENIENT
            connection.execute(INSERT, (event_id, kind, plan.aggregate, self._payload(plan, version)))
            self._pen.tell("written", event=event_id, aggregate=plan.aggregate, version=version, note=note_of(plan))
        if plan.late_seconds:
            self.enough.wait(plan.late_seconds)
        if plan.duplicate and self._committed:
            known = self._chance.choice(self._committed)
            connection.execute(INSERT, (known, LENIENT, plan.aggregate, "{}"))
        self._end(connection, plan, ids)

    def _end(self, connection: psycopg.Connection, plan: Plan, ids: list[str]) -> None:
        if plan.end == "break off":
            # Without a word, as a process that is killed; the server finds out and rolls back.
            connection.close()
        elif plan.end == "roll back":
            connection.rollback()
        if plan.end != "commit":
            self._tell("rolled back", plan, ids)
            return
        self._tell("committing", plan, ids)
        try:
            connection.commit()
        except psycopg.OperationalError:
            connection.close()
            self._tell("in doubt", plan, ids)
            return
        self._tell("committed", plan, ids)
        self._committed.extend(ids)

    def _tell(self, what: str, plan: Plan, ids: list[str]) -> None:
        for event_id in ids:
            self._pen.tell(what, event=event_id, aggregate=plan.aggregate)

    def _payload(self, plan: Plan, version: int) -> str:
        seconds = self._chance.uniform(0.3, 2.0) if self._chance.random() < 0.01 else self._chance.uniform(0, 0.01)
        payload = {"version": version, "seconds": round(seconds, 4), "poison": plan.poison}
        return json.dumps(payload | ({"padding": "x" * MEGABYTE} if plan.huge else {}))


def planned(chance: Random) -> Plan:
    """Draw a transaction."""
    aggregate = HOT if chance.random() < HOT_SHARE else f"a{chance.randrange(AGGREGATES)}"
    late = chance.random() < 0.03
    return Plan(
        aggregate,
        events=chance.randint(1, MOST_AT_ONCE),
        poison=chance.random() < 0.003,
        huge=chance.random() < 0.005,
        duplicate=chance.random() < 0.03,
        late_seconds=chance.uniform(*LATE_SECONDS) if late else 0.0,
        end=chance.choices(("commit", "roll back", "break off"), (90, 7, 3))[0],
    )


def is_strict(aggregate: str) -> bool:
    """Tell whether dead letters of that aggregate block it."""
    return aggregate in {f"a{number}" for number in range(STRICT_ONES)}


def aggregates() -> list[str]:
    """Return all of them."""
    return [HOT, *(f"a{number}" for number in range(AGGREGATES))]


def note_of(plan: Plan) -> str:
    """Say what is special about an event."""
    return "poison" if plan.poison else ""
