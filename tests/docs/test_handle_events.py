"""The page for authors of handlers: its files are real, its commands run, its promises hold in a worker's process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
import redis

from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "handle-events-in-python.md").read_text()
EXAMPLES = ROOT / "docs" / "how-to" / "examples"
FILES = ("lead_handlers/counting.py", "lead_handlers/greeting.py", "test_lead_handlers.py")
INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES (%s, %s, 'Lead', %s, 'tenant-1', %s, '{}')
"""
# What a handler wrote is there and can be seen by nobody yet: until somebody lets go of this lock.
WAIT_AT_COMMIT = """
CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4711);
    RETURN NULL;
END;
$$;
CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT OR UPDATE ON company_leads
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_commit();
"""
AT_COMMIT = """
SELECT pid FROM pg_stat_activity
 WHERE application_name = 'events-worker handlers' AND wait_event = 'advisory' AND datname = current_database()
"""


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [line for block in fenced("shell") for line in block.splitlines()]
(TABLE,) = fenced("sql")


@pytest.fixture
def environment(database_url: str, redis_url: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        "PATH": path,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PYTHONPATH": str(EXAMPLES),
        "EVENT_HANDLERS": "lead_handlers",
        # A killed worker's jobs are found soon.
        "QUEUE_LOCK_DURATION_MS": "1000",
        "QUEUE_STALLED_INTERVAL_MS": "200",
    }


@pytest.fixture
def database(database_url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(TABLE.encode())
        yield connection


@contextmanager
def worker(folder: Path, environment: dict[str, str], **more: str) -> Iterator[Process]:
    process = Process("events_worker", {**environment, **more}, folder / f"{uuid4()}.log")
    try:
        yield process
    finally:
        process.end()


def commit(database: Connection[Any], event_type: str, payload: dict[str, Any]) -> str:
    event_id = str(uuid4())
    body = {"leadId": "lead-1", "tenantId": "tenant-1", "email": "ada@example.org", **payload}
    database.execute(INSERT, (event_id, event_type, event_id, json.dumps(body)))
    return event_id


def result_of(redis_url: str, event_id: str) -> Any:
    """Wait for the end of an event's job, and return what its handlers returned."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        wait_for(lambda: client.zscore("intelliflow:events:completed", event_id), what="the event's end")
        return json.loads(client.hget(f"intelliflow:events:{event_id}", "returnvalue") or "")


def counted(database: Connection[Any]) -> int:
    (leads,) = database.execute("SELECT coalesce(sum(leads), 0) FROM company_leads").fetchone() or (0,)
    return int(leads)


def test_the_page_shows_the_files_as_they_are() -> None:
    assert fenced("python") == [(EXAMPLES / name).read_text() for name in FILES]


def test_a_newcomer_writes_little() -> None:
    lines = (EXAMPLES / "lead_handlers" / "counting.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 20


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(environment: dict[str, str], command: str) -> None:
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    if command.endswith("check"):
        assert fenced("text") == [done.stdout]


def test_the_handlers_of_the_page_work_in_a_worker(
    tmp_path: Path, environment: dict[str, str], database: Connection[Any], redis_url: str
) -> None:
    with worker(tmp_path, environment) as process:
        leads = [commit(database, "lead.created", {"company": "Analytical Engines"}) for _ in range(3)]
        customer = commit(database, "lead.converted", {"ownerEmail": "sam@example.org"})
        counts = [result_of(redis_url, event_id)["count_lead"]["leads"] for event_id in leads]
        assert sorted(counts) == [1, 2, 3]
        assert result_of(redis_url, customer)["greet-customer"] is None
        assert process.stop() == 143
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        mails = client.lrange("intelliflow:notifications:email:wait", 0, -1)
    # The rules' own mails are there too: three welcomes and one to the owner.
    assert len(mails) == 5
    assert counted(database) == 3
    assert process.logged('"event_handlers"')
    assert process.logged('"lead_counted"')


@pytest.mark.parametrize("commit_is", ["lost with the worker", "made without the worker"])
def test_killed_within_its_commit_a_transaction_happens_once(
    tmp_path: Path, environment: dict[str, str], database: Connection[Any], redis_url: str, commit_is: str
) -> None:
    database.execute(WAIT_AT_COMMIT)
    database.execute("SELECT pg_advisory_lock(4711)")
    with worker(tmp_path, environment) as process:
        event_id = commit(database, "lead.created", {"company": "Analytical Engines"})
        wait_for(lambda: database.execute(AT_COMMIT).fetchone(), what="the handler's commit")
        process.kill()
    if commit_is == "lost with the worker":
        database.execute(f"SELECT pg_terminate_backend(pid) FROM ({AT_COMMIT}) AS waiting")
        wait_for(lambda: not database.execute(AT_COMMIT).fetchone(), what="the end of its connection")
    database.execute("SELECT pg_advisory_unlock(4711)")
    if commit_is == "made without the worker":
        wait_for(lambda: counted(database) == 1, what="the commit")
    with worker(tmp_path, environment) as successor:
        result = result_of(redis_url, event_id)
        assert successor.stop() == 143
    assert ("count_lead" in result) == (commit_is == "lost with the worker")
    assert counted(database) == 1


def test_killed_before_the_others_are_done_a_handler_s_receipt_counts(
    tmp_path: Path, environment: dict[str, str], database: Connection[Any], redis_url: str
) -> None:
    (tmp_path / "stuck.py").write_text(
        "import asyncio\nfrom events_worker.handlers import on\n"
        "@on('lead.*', name='stuck')\nasync def stuck(event, context): await asyncio.Event().wait()\n"
    )
    (tmp_path / "freed.py").write_text(
        "from events_worker.handlers import on\n"
        "@on('lead.*', name='stuck')\nasync def freed(event, context): return 1\n"
    )
    path = os.pathsep.join([str(EXAMPLES), str(tmp_path)])
    with worker(tmp_path, environment, PYTHONPATH=path, EVENT_HANDLERS="lead_handlers,stuck") as process:
        event_id = commit(database, "lead.created", {"company": "Analytical Engines"})
        wait_for(lambda: counted(database) == 1, what="the effect")
        process.kill()
    with worker(tmp_path, environment, PYTHONPATH=path, EVENT_HANDLERS="lead_handlers,freed") as successor:
        result = result_of(redis_url, event_id)
        assert successor.stop() == 143
    assert result["stuck"] == 1
    assert "count_lead" not in result
    assert counted(database) == 1


def test_a_handler_that_takes_too_long_holds_up_only_its_event(
    tmp_path: Path, environment: dict[str, str], database: Connection[Any], redis_url: str
) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio\nfrom events_worker.handlers import on\n"
        "@on('lead.deleted', timeout_seconds=0.2)\nasync def slow(event, context): await asyncio.Event().wait()\n"
    )
    path = os.pathsep.join([str(EXAMPLES), str(tmp_path)])
    more = {"PYTHONPATH": path, "EVENT_HANDLERS": "lead_handlers,slow", "RETRY_EVENTS_DELAYS_MS": "1"}
    with worker(tmp_path, environment, **more), redis.Redis.from_url(redis_url, decode_responses=True) as client:
        slow = commit(database, "lead.deleted", {})
        other = commit(database, "lead.created", {"company": "Compiler Works"})
        assert result_of(redis_url, other)["count_lead"] == {"leads": 1}
        wait_for(lambda: client.zscore("intelliflow:events:failed", slow), what="its dead letter")
        reason = client.hget(f"intelliflow:events:{slow}", "failedReason")
    assert reason == "TIME_LIMIT: handler slow: it took longer than 0.2 s"
