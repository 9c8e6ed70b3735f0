"""A place for one events-worker or two, with events and a verdict."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

from chaos.events import LENIENT
from chaos.fleet import TESTS
from chaos.place import Place
from chaos.rest import come_to_rest, what_is_left
from chaos.verdict import judge
from chaos.writers import INSERT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.verdict import Verdict

# Found and taken over by others within seconds instead of a quarter of a minute.
QUICK = {
    "CHAOS_HASTE": "1",
    "CHAOS_MISHAPS": "0",
    "QUEUE_LOCK_DURATION_MS": "2000",
    "QUEUE_STALLED_INTERVAL_MS": "500",
    "RETRY_EVENTS_DELAYS_MS": "50,50",
    "EVENT_HANDLERS": "chaos.watched",
    "PYTHONPATH": str(TESTS),
}


class Site(Place):
    """For events-workers."""

    package = "events_worker"
    quick = QUICK

    def commit(self, aggregates: Sequence[str], events: int = 1, kind: str = LENIENT, **payload: Any) -> list[str]:
        """Commit, in one transaction, so many events of each aggregate; return their ids, aggregate by aggregate."""
        rows = [(str(uuid4()), aggregate, version) for aggregate in aggregates for version in self._next(events)]
        with psycopg.connect(self.database_url) as connection:
            for event, aggregate, version in rows:
                connection.execute(INSERT, (event, kind, aggregate, json.dumps(payload | {"version": version})))
                self.pen.tell("written", event=event, aggregate=aggregate, version=version)
                self.pen.tell("committing", event=event, aggregate=aggregate)
        for event, aggregate, _ in rows:
            self.pen.tell("committed", event=event, aggregate=aggregate)
        return [event for event, _, _ in rows]

    def _next(self, events: int) -> range:
        first = 1 + sum(entry.what == "written" for entry in self.history)
        return range(first, first + events)

    def effects(self, event: str) -> dict[str, int]:
        """Count the effects of an event by handler."""
        found = [entry.handler for entry in self.history if entry.event == event and entry.what == "effect"]
        return {handler: found.count(handler) for handler in ("first", "second")}

    def verdict(self, within: float = 40) -> Verdict:
        """Wait for rest, and judge."""
        come_to_rest(self.database_url, self.redis_url, within)
        return judge(self.history, what_is_left(self.database_url, self.redis_url))
