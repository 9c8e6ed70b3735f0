"""`intelliflow` within a test's own process: what it wrote, and the code it would have ended with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
import structlog
from psycopg.types.json import Jsonb

from worker_ops.__main__ import run

if TYPE_CHECKING:
    from collections.abc import Iterator

INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES (%s, %s, 'lead', %s, 't-1', %s, '{}')
"""


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Operator:
    """Somebody at a terminal, with a connection to the database beside it."""

    database: psycopg.Connection[Any]
    _capsys: pytest.CaptureFixture[str]

    def run(self, line: str, *more: str) -> Said:
        self._capsys.readouterr()
        try:
            code = int(run([*line.split(), *more]))
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)

    def json(self, line: str, *more: str) -> Any:
        """Run a command that ends well and return its data."""
        said = self.run(f"{line} -o json", *more)
        assert said.code == 0, said
        return said.rows

    def commit(self, event_type: str = "lead.created", aggregate: str = "", payload: Any = None) -> str:
        event_id = str(uuid4())
        self.database.execute(
            INSERT, [event_id, event_type, aggregate or event_id, Jsonb(payload or {"leadId": "l-1"})]
        )
        return event_id

    def dead(self, event_type: str = "lead.created", error: str = "GONE: it is gone", **columns: Any) -> str:
        """Commit an event and let it die."""
        event_id = self.commit(event_type, **columns)
        self.database.execute(
            "UPDATE domain_event_outbox SET status = 'dead_letter', last_error = %s, processed_at = clock_timestamp()"
            " WHERE id = %s",
            [error, event_id],
        )
        return event_id

    def under_way(
        self, event_id: str, *, dead_reason: str | None = None, blocks: bool = True, finished: str = "{}"
    ) -> None:
        self.database.execute(
            "INSERT INTO domain_event_under_way (event_id, aggregate_type, aggregate_id, aggregate_hash, finished,"
            " dead_reason, blocks) SELECT id, aggregate_type, aggregate_id, aggregate_hash, %s, %s, %s"
            " FROM domain_event_outbox WHERE id = %s",
            [finished, dead_reason, blocks, event_id],
        )

    def value(self, statement: str, *arguments: object) -> Any:
        row = self.database.execute(statement, arguments).fetchone()
        assert row
        return row[0]


@pytest.fixture
def operator(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Operator]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    before = structlog.get_config()
    with psycopg.connect(database_url, autocommit=True) as database:
        yield Operator(database, capsys)
    structlog.configure(**before)
