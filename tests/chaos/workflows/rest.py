"""When no execution is left to be done, and what is left then."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import redis

from chaos.rest import asked
from chaos.workflows.audit import STRANGERS, TURNS
from chaos.workflows.verdict import Letter, Record, Remains, Row, Turn
from worker_suite import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

QUEUE = "intelliflow:notifications:email"
RESTLESS = """
SELECT (SELECT count(*) FROM fw_workflow_executions WHERE status IN ('queued', 'running', 'waiting', 'retry_pending'))
     + (SELECT count(*) FROM pgmq.q_workflow_execution_queue)
"""
ROWS = """
SELECT e.id::text, e.organization_id, coalesce(r.name, e.workflow), e.status, e.retry_count, e.total_attempts, e.round,
       coalesce(e.last_error, ''), e.lease_owner, e.parent_id::text, (e.input->>'fails')::int
  FROM fw_workflow_executions AS e LEFT JOIN fw_workflow_rules AS r ON r.id = e.rule_id
"""
RECORDS = "SELECT execution_id::text, step, round, attempt, kind, status FROM fw_workflow_steps"
LETTERS = """
SELECT message->>'execution_id', (message->>'attempt')::int, (message->>'total_attempts')::int, message->>'error'
  FROM pgmq.q_workflow_dlq
"""
MESSAGES = "SELECT message->>'execution_id' FROM pgmq.q_workflow_execution_queue"
WAITS = "SELECT count(*) FROM fw_workflow_waits"
AT_WORK = "SELECT count(*) FROM fw_module_settings WHERE worker_running"


def come_to_rest(database_url: str, within: float) -> None:
    """Wait until nothing is left to be done; what never comes to rest, the verdict shows."""
    with suppress(TimeoutError):
        wait_for(lambda: asked(database_url, RESTLESS) == [(0,)], within, every=0.1)


def what_is_left(database_url: str, redis_url: str, surprises: Sequence[str] = ()) -> Remains:
    """Collect what the verdict asks of the servers."""
    with redis.Redis.from_url(redis_url) as server:
        listed: Counter[str] = Counter(
            job.decode() for part in ("wait", "active") for job in server.lrange(f"{QUEUE}:{part}", 0, -1)
        )
        listed.update(job.decode() for job in server.zrange(f"{QUEUE}:prioritized", 0, -1))
    return Remains(
        rows=made(Row, database_url, ROWS),
        records=made(Record, database_url, RECORDS),
        letters=made(Letter, database_url, LETTERS),
        turns=made(Turn, database_url, TURNS),
        strangers=[" ".join(map(str, row)) for row in asked(database_url, STRANGERS)],
        messages=[str(row[0]) for row in asked(database_url, MESSAGES)],
        jobs=listed,
        waits=int(asked(database_url, WAITS)[0][0]),
        at_work=int(asked(database_url, AT_WORK)[0][0]),
        surprises=surprises,
    )


def made(kind: type[Any], database_url: str, question: str) -> list[Any]:
    """Return the rows as values of a kind."""
    with psycopg.connect(database_url) as connection:
        return [kind(*row) for row in connection.execute(question.encode())]
