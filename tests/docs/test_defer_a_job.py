"""The page on deferring: its files are real, its commands run with a real application, which is then killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis
import yaml

from embedded_stack import postgres_server
from orders_api_process import EXAMPLES, OrdersApi, environment
from scripted_http import HANG, ScriptedHttp, answer
from worker_ops.jobs.schema import migrate_jobs
from worker_suite import Process, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "defer-a-job.md").read_text()
RULES_PAGE = (ROOT / "docs" / "how-to" / "write-a-rule.md").read_text()
JOBS = "SELECT task_name, status FROM procrastinate_jobs WHERE queue_name <> 'housekeeping' ORDER BY id"
# The least there is, for a worker that is killed.
SILENCE_MS = "5000"


def fenced(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


JOURNEY, SWITCHED_OFF, REHEARSAL = (block.splitlines() for block in fenced("shell"))


@pytest.fixture
async def warehouse() -> AsyncIterator[ScriptedHttp]:
    async with ScriptedHttp() as server:
        server.always(answer(201))
        yield server


@pytest.fixture
def variables(database_url: str, jobs_database_url: str, redis_url: str, warehouse: ScriptedHttp) -> dict[str, str]:
    with psycopg.connect(database_url) as connection:
        connection.execute((EXAMPLES / "orders.sql").read_bytes())
    return environment(database_url, jobs_database_url, redis_url, WAREHOUSE_URL=warehouse.url)


@pytest.fixture
def start(variables: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., OrdersApi]]:
    """Starts the application, once or more."""
    started: list[OrdersApi] = []

    def begin(*options: str, **more: str) -> OrdersApi:
        log = tmp_path / f"log-{len(started)}"
        started.append(OrdersApi({**variables, **more}, log, options))
        return started[-1]

    try:
        yield begin
    finally:
        for one in started:
            one.end()


def rows(url: str, statement: str = JOBS) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


async def eventually(condition: Callable[[], object], what: str, within: float = 30.0) -> None:
    """Wait, and let the warehouse work meanwhile."""
    await asyncio.to_thread(wait_for, condition, within, what, 0.1)


def said(command: str, variables: dict[str, str]) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, **variables, "PATH": path}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_shows_the_files_as_they_are() -> None:
    names = ("orders_api/app.py", "orders_api/bus.py")
    assert fenced("python") == [(EXAMPLES / name).read_text() for name in names]
    assert fenced("yaml") == [(EXAMPLES / "order-receipt.yaml").read_text()]


@pytest.mark.needs("bash", "curl", "psql")
async def test_a_newcomer_gets_from_nothing_to_the_parcel(
    start: Callable[..., OrdersApi], variables: dict[str, str], warehouse: ScriptedHttp
) -> None:
    answers: list[str] = []
    for command in JOURNEY:
        if command.startswith("uvicorn"):
            assert command == "uvicorn orders_api.app:app --port 8000"
            api = await asyncio.to_thread(start().ready)
            continue
        if command.startswith("psql") and "SELECT" in command:
            await eventually(lambda: "succeeded" in said(command, variables), "the end of the job")  # noqa: B023
        answers.append(
            await asyncio.to_thread(said, command.replace(":8000", f":{api.port}") if answers else command, variables)
        )
    assert json.loads(answers[1]) == {"id": "7", "email": "ada@example.org"}
    assert json.loads(answers[2])["ready"] is True
    assert answers[3] == "orders.pack|succeeded\n"
    assert [json.loads(request.body) for request in warehouse.requests] == [{"order": "7"}]
    assert api.logged("job_queue_worker_started")
    assert api.stop() in (0, -15)
    assert api.logged("Application shutdown complete")


@pytest.mark.timeout(180)
async def test_what_a_killed_process_had_in_hand_is_done_by_the_next(
    start: Callable[..., OrdersApi], variables: dict[str, str], warehouse: ScriptedHttp
) -> None:
    url = variables["JOB_QUEUE_DATABASE_URL"]
    warehouse.will(HANG)
    first = await asyncio.to_thread(start(JOB_QUEUE_STALLED_AFTER_MS=SILENCE_MS).ready)
    assert await asyncio.to_thread(first.order, "7") == 201
    await eventually(lambda: warehouse.requests, "the first request")
    assert rows(url) == [("orders.pack", "doing")]
    first.kill()
    await asyncio.to_thread(start(JOB_QUEUE_STALLED_AFTER_MS=SILENCE_MS).ready)
    await eventually(lambda: rows(url) == [("orders.pack", "succeeded")], "the end of the job", 90)
    assert len(warehouse.requests) == 2
    assert len({request.headers["idempotency-key"] for request in warehouse.requests}) == 1
    assert rows(url, "SELECT stalls FROM procrastinate_jobs WHERE task_name = 'orders.pack'") == [(1,)]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_readiness_goes_with_the_database_and_comes_back_with_it(
    start: Callable[..., OrdersApi], variables: dict[str, str], warehouse: ScriptedHttp, tmp_path: Path, loop: str
) -> None:
    """Deferring comes back, too: a request that wants it meanwhile succeeds without."""
    with postgres_server(tmp_path / "jobs") as server:
        migrate_jobs(server.url, lambda _: None)
        api = await asyncio.to_thread(start("--loop", loop, JOB_QUEUE_DATABASE_URL=server.url).ready)
        assert await asyncio.to_thread(api.order, "1") == 201
        await eventually(lambda: len(warehouse.requests) == 1, "the first parcel")
        server.stop()
        await eventually(lambda: api.status("/health/ready") == 503, "being unready")
        assert api.readiness()["reason"] == "postgres-jobs does not answer"
        assert await asyncio.to_thread(api.order, "2") == 201
        assert api.logged("event_handler_failed")
        server.start()
        await eventually(lambda: api.status("/health/ready") == 200, "being ready again")
        assert await asyncio.to_thread(api.order, "3") == 201
        await eventually(lambda: len(warehouse.requests) == 2, "the next parcel")
        await eventually(lambda: rows(server.url) == [("orders.pack", "succeeded")] * 2, "both ends")
    orders = [json.loads(request.body)["order"] for request in warehouse.requests]
    assert orders == ["1", "3"]
    published = "SELECT payload->>'orderId' FROM domain_event_outbox ORDER BY position"
    assert rows(variables["DATABASE_URL"], published) == [("1",), ("2",), ("3",)]


async def test_it_starts_though_the_database_of_the_jobs_is_away(
    start: Callable[..., OrdersApi], variables: dict[str, str], tmp_path: Path
) -> None:
    with postgres_server(tmp_path / "jobs") as server:
        url = server.url
        server.stop()
        api = start(JOB_QUEUE_DATABASE_URL=url, START_TIMEOUT_MS="1000")
        await eventually(lambda: "failed and begins again" in api.readiness().get("reason", ""), "the second try")
        assert api.status("/openapi.json") == 200
        server.start()
        await eventually(lambda: "run ./scripts/jobs/apply-schema.sh" in api.readiness()["reason"], "a word about it")
        migrate_jobs(url, lambda _: None)
        await asyncio.to_thread(api.ready)


async def test_jobs_in_hand_are_done_before_it_ends(
    start: Callable[..., OrdersApi], variables: dict[str, str], warehouse: ScriptedHttp
) -> None:
    """What does not end in time goes back to the queue at once, at no cost."""
    warehouse.will(HANG)
    api = await asyncio.to_thread(start(SHUTDOWN_TIMEOUT_MS="1000").ready)
    await asyncio.to_thread(api.order, "7")
    await eventually(lambda: warehouse.requests, "the request")
    assert await asyncio.to_thread(api.stop) in (0, -15)
    assert rows(
        variables["JOB_QUEUE_DATABASE_URL"],
        "SELECT status, attempts, stalls FROM procrastinate_jobs WHERE task_name = 'orders.pack'",
    ) == [("todo", 0, 0)]
    assert rows(variables["JOB_QUEUE_DATABASE_URL"], "SELECT count(*) FROM procrastinate_workers") == [(0,)]
    assert api.logged("1 jobs handed back")


async def test_without_its_worker_it_defers_and_runs_nothing(
    start: Callable[..., OrdersApi], variables: dict[str, str], warehouse: ScriptedHttp
) -> None:
    (command,) = SWITCHED_OFF
    given = dict(re.findall(r"(\w+)=(\S+)", command))
    assert command.removesuffix(JOURNEY[1]) == "JOB_QUEUE_ENABLED=false "
    api = await asyncio.to_thread(start(**given).ready)
    assert api.readiness()["state"] == "disabled"
    assert await asyncio.to_thread(api.order, "7") == 201
    assert rows(variables["JOB_QUEUE_DATABASE_URL"]) == [("orders.pack", "todo")]
    assert rows(variables["JOB_QUEUE_DATABASE_URL"], "SELECT count(*) FROM procrastinate_workers") == [(0,)]
    assert not api.logged("job_queue_worker_started")
    await asyncio.to_thread(start().ready)
    await eventually(lambda: rows(variables["JOB_QUEUE_DATABASE_URL"]) == [("orders.pack", "succeeded")], "the end")
    assert len(warehouse.requests) == 1


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("QUEUE_CONCURRENCY", "0", "QUEUE_CONCURRENCY='0' is too small; allowed:"),
        ("JOB_QUEUE_DATABASE_URL", "", "JOB_QUEUE_DATABASE_URL is not set"),
        ("JOB_QUEUE_ENABLED", "perhaps", "JOB_QUEUE_ENABLED='perhaps' is neither true nor false"),
    ],
)
def test_a_wrong_variable_stops_the_start_by_its_name(
    start: Callable[..., OrdersApi], variable: str, value: str, complaint: str
) -> None:
    api = start(**{variable: value})
    assert api.popen.wait(30) != 0
    assert api.logged(complaint)


@pytest.mark.needs("bash")
def test_its_rule_says_what_it_would_defer(variables: dict[str, str]) -> None:
    (command,) = REHEARSAL
    output = said(command, variables)
    assert re.search(r"^defer email.send queue email priority 10 key [0-9a-f-]{36}$", output, re.MULTILINE)
    assert "Your order 7" in output


async def test_its_rule_sends_one_mail_of_an_order(
    start: Callable[..., OrdersApi], variables: dict[str, str], tmp_path: Path
) -> None:
    rules = EXAMPLES / "order-receipt.yaml"
    events = Process("events_worker", {**variables, "EVENT_RULES_FILE": str(rules)}, tmp_path / "events")
    try:
        api = await asyncio.to_thread(start().ready)
        await asyncio.to_thread(events.ready)
        await asyncio.to_thread(api.order, "7")
        with redis.Redis.from_url(variables["REDIS_URL"], decode_responses=True) as client:
            waiting = "intelliflow:notifications:email:wait"
            await eventually(lambda: client.llen(waiting), "the mail")
            (job_id,) = client.lrange(waiting, 0, -1)
            mail = json.loads(client.hget(f"intelliflow:notifications:email:{job_id}", "data") or "")
    finally:
        events.end()
    assert (mail["tenantId"], mail["recipient"], mail["content"]["subject"]) == (
        "acme",
        {"email": "ada@example.org"},
        "Your order 7",
    )
    await eventually(
        lambda: (
            sorted(rows(variables["JOB_QUEUE_DATABASE_URL"]))
            == [("email.send", "succeeded"), ("orders.pack", "succeeded")]
        ),
        "both jobs",
    )


def test_its_sql_defers_once(jobs_database_url: str) -> None:
    (statement,) = fenced("sql")
    assert len({rows(jobs_database_url, statement)[0] for _ in range(3)}) == 1
    with psycopg.connect(jobs_database_url) as connection:
        connection.execute(statement.encode())
    assert rows(jobs_database_url, "SELECT queue_name, task_name, args->'json' FROM procrastinate_jobs") == [
        ("api", "api.call", {"id": 4711})
    ]


def test_the_rule_of_the_other_page_is_right() -> None:
    (rule,) = (block for block in fenced("yaml", RULES_PAGE) if "delaySeconds" in block)
    assert yaml.safe_load(rule)["rules"][0]["job"].keys() == {
        "task",
        "queue",
        "priority",
        "lock",
        "delaySeconds",
        "arguments",
    }
