"""The jobs of our own schema `cron`: each due time runs once, whoever ticks, dies, freezes or puts the clock back."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from engine_harness import until
from worker_runtime.loops import StopSignal
from worker_runtime.workflow_metrics import WorkflowMetrics
from workflow_worker.store.cron import KEEP_RUNS, CronStore
from workflow_worker.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from embedded_stack import PostgresServer

TINY_TICKER = Path(__file__).parents[1] / "tiny_ticker.py"
NOTED = "SELECT status, return_message FROM cron.job_run_details WHERE jobid = $1 ORDER BY runid"
MOVE = "UPDATE cron.tick SET done_until = clock_timestamp() + make_interval(secs => $2) WHERE jobid = $1"
AHEAD = "SELECT extract(epoch FROM done_until - clock_timestamp())::float FROM cron.tick WHERE jobid = $1"
MARK = "INSERT INTO mark SELECT clock_timestamp()"
HOUR, DAY = 3600, 86_400


class Site:
    """A database with no job but those of the test, and a table for commands to write to."""

    def __init__(self, url: str, connection: asyncpg.Connection) -> None:
        self.url = url
        self.connection = connection
        self.registry = CollectorRegistry()
        self.metrics = WorkflowMetrics(self.registry)

    def ticker(self, instance: str = "one", *, command_seconds: float = 60) -> Ticker:
        store = CronStore(self.url, instance, command_seconds=command_seconds)
        return Ticker(store, self.metrics, every_seconds=0.05)

    async def schedule(self, schedule: str, command: str, *, name: str = "it") -> int:
        return int(await self.value("SELECT cron.schedule($1, $2, $3)", name, schedule, command))

    async def value(self, question: str, *about: Any) -> Any:
        return await self.connection.fetchval(question, *about)

    async def move(self, job: int, seconds: float) -> None:
        """Let what was due until so many seconds from now be done."""
        await self.connection.execute(MOVE, job, seconds)

    async def marks(self) -> int:
        return int(await self.value("SELECT count(*) FROM mark"))

    async def messages(self, job: int) -> list[tuple[Any, ...]]:
        return await self.rows(NOTED, job)

    async def rows(self, question: str, *about: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.connection.fetch(question, *about)]

    async def ran(self, job: int, count: int = 1) -> bool:
        """Whether so many runs, or more, have ended."""
        ended = "SELECT count(*) FROM cron.job_run_details WHERE jobid = $1 AND end_time IS NOT NULL"
        return bool(await self.value(ended, job) >= count)

    async def holds(self, condition: str) -> bool:
        return bool(await self.value(f"SELECT {condition}"))

    async def look_on(self, looks: int = 2) -> None:
        """Wait until the tickers have looked at the clock and had time to do what they should not."""
        other = await self.schedule("1 second", "SELECT 1", name="other")
        await until(lambda: self.ran(other, looks), 20)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    connection = await asyncpg.connect(database_url)
    await connection.execute("SELECT cron.unschedule('process-workflow-queue'); CREATE TABLE mark (at timestamptz)")
    yield Site(database_url, connection)
    await connection.close()


@asynccontextmanager
async def ticking(*tickers: Ticker, grace_seconds: float = 5) -> AsyncIterator[None]:
    """Run tickers, and fail if one of them ends by itself."""
    stop = StopSignal()
    tasks = [asyncio.create_task(ticker.run(stop)) for ticker in tickers]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        stop.request(grace_seconds)
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)


@contextmanager
def tiny_ticker(site: Site, instance: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, TINY_TICKER, site.url, instance])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def leads(site: Site, instance: str) -> Awaitable[bool]:
    return site.holds(f"owner = '{instance}' AND held_until > clock_timestamp() FROM cron.ticker")


async def test_a_job_runs_when_it_is_due_and_its_end_is_noted(site: Site) -> None:
    job = await site.schedule("1 second", MARK)
    async with ticking(site.ticker()):
        await until(lambda: site.ran(job, 3))
    runs = await site.rows(
        "SELECT status, return_message, command, database = current_database(), username = current_user, job_pid > 0,"
        " end_time >= start_time FROM cron.job_run_details"
    )
    assert set(runs) == {("succeeded", "INSERT 0 1", MARK, *[True] * 4)}
    assert await site.marks() == len(runs)
    assert site.sample("intelliflow_cron_runs_total", outcome="succeeded") == len(runs)
    assert site.sample("intelliflow_cron_leads") == 0


async def test_four_tickers_run_each_due_time_once(site: Site) -> None:
    jobs = [await site.schedule("1 second", f"{MARK} -- {name}", name=name) for name in "abc"]
    async with ticking(*(site.ticker(f"t{number}") for number in range(4))):
        for job in jobs:
            await until(lambda job=job: site.ran(job, 4), 20)  # type: ignore[misc]
    too_soon = """
    SELECT count(*) FROM (
        SELECT start_time - lag(start_time) OVER (PARTITION BY jobid ORDER BY runid) AS pause FROM cron.job_run_details
    ) AS each WHERE pause < interval '0.2 seconds'
    """
    assert await site.value(too_soon) == 0
    assert await site.marks() == await site.value("SELECT count(*) FROM cron.job_run_details")


async def test_a_due_time_is_run_once_by_those_who_all_think_that_they_lead(site: Site) -> None:
    job = await site.schedule("1 second", MARK)
    await site.move(job, -10)
    stores = [CronStore(site.url, f"s{number}") for number in range(4)]
    try:
        (seen,) = await stores[0].jobs()
        ends = await asyncio.gather(*(store.run(seen, seen.now) for store in stores))
    finally:
        for store in stores:
            await store.close()
    assert sum(end is not None for end in ends) == 1
    assert await site.marks() == 1


async def test_a_job_runs_once_at_a_time_and_again_when_its_run_has_ended(site: Site) -> None:
    job = await site.schedule("1 second", f"{MARK}; SELECT pg_sleep(1.7)")
    async with ticking(site.ticker("one"), site.ticker("two")):
        await until(lambda: site.ran(job, 3), 20)
    overlaps = """
    SELECT count(*) FROM (
        SELECT start_time < lag(end_time) OVER (ORDER BY runid) AS early FROM cron.job_run_details
    ) AS each WHERE early
    """
    assert await site.value(overlaps) == 0
    assert await site.value("SELECT max(at) - min(at) < interval '6 seconds' FROM mark")


async def test_what_was_missed_is_made_up_for_once(site: Site) -> None:
    yearly, minutely = await site.schedule("0 0 1 1 *", MARK), await site.schedule("* * * * *", MARK, name="minutely")
    await site.move(yearly, -3 * 366 * DAY)
    await site.move(minutely, -HOUR)
    async with ticking(site.ticker()):
        await until(lambda: site.ran(yearly))
        await until(lambda: site.ran(minutely))
        await site.look_on()
    assert await site.value("SELECT count(*) FROM cron.job_run_details WHERE jobid = $1", yearly) == 1
    # Another minute may have begun meanwhile.
    assert await site.value("SELECT count(*) FROM cron.job_run_details WHERE jobid = $1", minutely) <= 2


async def test_a_job_that_is_switched_off_does_not_run_and_is_not_made_up_for(site: Site) -> None:
    job = await site.schedule("0 0 1 1 *", MARK)
    await site.move(job, -3 * 366 * DAY)
    await site.value("SELECT cron.alter_job($1, active := false)", job)
    async with ticking(site.ticker()):
        await site.look_on(1)
        await site.value("SELECT cron.alter_job($1, active := true)", job)
        await site.look_on(3)
    assert await site.marks() == 0


FAILING = [
    ("SELECT * FROM nothing", 'ERROR:  relation "nothing" does not exist'),
    ("SELECT 1 / 0", "ERROR:  division by zero"),
    ("SELECT pg_sleep(60)", "ERROR:  canceling statement due to statement timeout"),
    ("SELECT pg_terminate_backend(pg_backend_pid())", "ERROR:  connection was closed in the middle of operation"),
    ("SELEC", 'ERROR:  syntax error at or near "SELEC"'),
    (
        "INSERT INTO mark VALUES (1)",
        'ERROR:  column "at" is of type timestamp with time zone but expression is of type',
    ),
    ("COPY mark FROM STDIN", "COPY not supported"),
    ("SELECT 1; -- and\n /* then */ copy (SELECT 1) TO stdout", "COPY not supported"),
]


@pytest.mark.parametrize(("command", "message"), FAILING)
async def test_a_command_that_fails_is_noted_and_comes_again(site: Site, command: str, message: str) -> None:
    job = await site.schedule("1 second", command)
    async with ticking(site.ticker(command_seconds=0.3)):
        await until(lambda: site.ran(job, 2), 20)
    ends = await site.messages(job)
    assert {status for status, _ in ends} == {"failed"}
    assert all(message in text for _, text in ends)
    assert site.sample("intelliflow_cron_runs_total", outcome="failed") == len(ends)


GOOD = [
    ("SELECT * FROM generate_series(1, 3)", "3 rows"),
    ("SELECT 1", "1 row"),
    ("VACUUM mark", "VACUUM"),
    ("SELECT 1; INSERT INTO mark VALUES (now()), (now())", "INSERT 0 2"),
    ("", "0 rows"),
    ("-- not today", "0 rows"),
    # Whatever a command leaves behind in its connection, its end is noted.
    ("BEGIN; SET TRANSACTION READ ONLY", "SET"),
    ("SET search_path = ''; SET default_transaction_read_only = on", "SET"),
    ("SELECT pg_advisory_unlock_all()", "1 row"),
    ("DO $$ BEGIN COMMIT; END $$", "DO"),
    ("SELECT E'\\u00e9', '$1 % {}'", "1 row"),
]


@pytest.mark.parametrize(("command", "message"), GOOD)
async def test_what_a_command_says_is_noted(site: Site, command: str, message: str) -> None:
    job = await site.schedule("0 0 1 1 *", command)
    await site.move(job, -3 * 366 * DAY)
    async with ticking(site.ticker()):
        await until(lambda: site.ran(job))
    assert await site.messages(job) == [("succeeded", message)]


async def test_a_command_may_take_itself_more_time(site: Site) -> None:
    job = await site.schedule("0 0 1 1 *", "SET statement_timeout = '20s'; SELECT pg_sleep(1)")
    await site.move(job, -3 * 366 * DAY)
    async with ticking(site.ticker(command_seconds=0.3)):
        await until(lambda: site.ran(job))
    assert await site.messages(job) == [("succeeded", "1 row")]


async def test_a_job_of_another_login_is_not_run_and_noted_as_such_once(site: Site) -> None:
    job = await site.schedule("0 0 1 1 *", MARK)
    await site.connection.execute("UPDATE cron.job SET username = 'somebody'")
    # Within a minute one that logs in as somebody may come.
    await site.move(job, -3 * 366 * DAY)
    async with ticking(site.ticker("one"), site.ticker("two")):
        await until(lambda: site.ran(job))
        await site.look_on()
    ((status, message),) = await site.messages(job)
    assert status == "failed"
    assert message.startswith("not run: the job is of somebody, and the workflow-worker logs in as intelliflow.")
    assert await site.marks() == 0
    assert site.sample("intelliflow_cron_runs_total", outcome="refused") == 1
    # The remedy that it names helps.
    await site.connection.execute(message.partition("SELECT")[1] + message.partition("SELECT")[2])
    await site.move(job, -3 * 366 * DAY)
    async with ticking(site.ticker()):
        await until(lambda: site.ran(job, 2))
    assert await site.marks() == 1


async def test_a_worker_that_is_killed_within_a_command_stops_no_later_tick(site: Site) -> None:
    job = await site.schedule("1 second", "SELECT pg_sleep(30)")
    other = await site.schedule("1 second", MARK, name="other")
    with tiny_ticker(site, "victim") as victim:
        await until(lambda: site.holds("EXISTS (SELECT FROM cron.job_run_details WHERE status = 'running')"), 20)
        await until(lambda: site.ran(other), 20)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    before = await site.value("SELECT count(*) FROM cron.job_run_details WHERE jobid = $1", other)
    await site.connection.execute("SELECT cron.alter_job($1, command := 'SELECT 1')", job)
    async with ticking(site.ticker("heir")):
        await until(lambda: site.ran(other, before + 1), 30)
        await until(lambda: site.ran(job, 2), 30)
    assert (await site.messages(job))[:2] == [
        ("failed", "lost: its worker or its connection went away"),
        ("succeeded", "1 row"),
    ]


async def test_a_leader_that_is_frozen_is_replaced_and_wakes_up_as_a_follower(site: Site) -> None:
    with tiny_ticker(site, "frozen") as frozen:
        await until(lambda: leads(site, "frozen"), 20)
        frozen.send_signal(signal.SIGSTOP)
        job = await site.schedule("1 second", MARK)
        async with ticking(site.ticker("heir")):
            await until(lambda: site.ran(job, 2), 30)
            frozen.send_signal(signal.SIGCONT)
            await until(lambda: site.ran(job, 5), 30)
            assert await leads(site, "heir")
        # It is alive, and takes the lead that is left to it at once.
        await until(lambda: leads(site, "frozen"))
    too_soon = (
        "SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY at) AS pause FROM mark) AS each WHERE pause < '0.2 s'"
    )
    assert await site.value(too_soon) == 0


async def test_an_outage_is_waited_out(own_postgres: PostgresServer) -> None:
    url = own_postgres.url
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE mark (at timestamptz)")
    job = await connection.fetchval("SELECT cron.schedule('it', '1 second', 'INSERT INTO mark VALUES (now())')")
    async with ticking(Site(url, connection).ticker()):
        await until(lambda: Site(url, connection).ran(job), 20)
        own_postgres.kill()
        await asyncio.sleep(1)  # The outage has to last a few looks, which nobody could see.
        await asyncio.to_thread(own_postgres.start)
        connection = await asyncpg.connect(url)
        before = await connection.fetchval("SELECT count(*) FROM mark")
        await until(lambda: Site(url, connection).ran(job, before + 2), 30)
        await connection.close()


@pytest.mark.parametrize(
    ("schedule", "ahead", "stays"),
    [
        ("* * * * *", 50, True),
        ("* * * * *", 100, False),
        ("30 seconds", 100, False),
        ("0 3 * * *", 2 * HOUR, True),
        ("0 3 * * *", 4 * HOUR, False),
    ],
)
async def test_a_clock_that_is_put_back(site: Site, schedule: str, ahead: float, *, stays: bool) -> None:
    job = await site.schedule(schedule, MARK)
    await site.move(job, ahead)
    async with ticking(site.ticker()):
        await site.look_on()
    assert (await site.value(AHEAD, job) > 30) is stays
    assert await site.marks() == 0


async def test_a_lead_from_before_the_clock_was_put_back_ends(site: Site) -> None:
    await site.connection.execute("UPDATE cron.ticker SET owner = 'x', held_until = now() + interval '1 year'")
    async with ticking(site.ticker("one")):
        await until(lambda: leads(site, "one"))


async def test_a_stop_lets_a_command_end_within_its_grace_and_cancels_it_then(site: Site) -> None:
    quick, slow = (
        await site.schedule("1 second", "SELECT pg_sleep(1)"),
        await site.schedule("1 second", "SELECT pg_sleep(60)", name="slow"),
    )
    under_way = "(SELECT count(*) FROM cron.job_run_details WHERE status = 'running') = 2"
    async with ticking(site.ticker("one"), grace_seconds=2.5):
        await until(lambda: site.holds(under_way), 20)
    assert (await site.messages(quick))[-1] == ("succeeded", "1 row")
    assert await site.messages(slow) == [("failed", "ERROR:  canceling statement due to user request")]
    # Nobody has to wait for the lead to run out.
    assert await site.holds("held_until < now() FROM cron.ticker")


async def test_where_the_schema_is_pg_cron_s_it_rests(site: Site) -> None:
    await site.connection.execute("DROP TABLE cron.ticker")
    job = await site.schedule("1 second", MARK)
    await site.move(job, -10)
    async with ticking(site.ticker()):
        await asyncio.sleep(0.5)  # Nothing tells that it rests.
    assert await site.marks() == 0


async def test_a_login_that_may_not_use_the_schema_rests(site: Site) -> None:
    await site.connection.execute("CREATE ROLE powerless LOGIN PASSWORD 'p'")
    parts = urlsplit(site.url)
    url = parts._replace(netloc=f"powerless:p@{parts.hostname}:{parts.port}").geturl()
    try:
        async with ticking(Site(url, site.connection).ticker()):
            await asyncio.sleep(0.5)  # Nothing tells that it rests.
        assert await site.value("SELECT owner IS NULL FROM cron.ticker")
    finally:
        await site.connection.execute("DROP ROLE powerless")


async def test_old_runs_and_too_many_are_deleted(site: Site) -> None:
    job = await site.schedule("0 0 1 1 *", MARK)
    fill = """
    INSERT INTO cron.job_run_details (jobid, status, start_time, end_time)
    SELECT $1, 'succeeded', now() - make_interval(days => $2), now() FROM generate_series(1, $3)
    """
    await site.connection.execute(fill, job, 8, 500)
    await site.connection.execute(fill, -1, 8, 500)
    await site.connection.execute(fill, -1, 6, 1)
    await site.connection.execute(fill, job, 1, KEEP_RUNS + 100)
    store = CronStore(site.url, "one")
    await store.keep()
    await store.close()
    assert await site.rows("SELECT jobid, count(*) FROM cron.job_run_details GROUP BY 1 ORDER BY 1") == [
        (-1, 1),
        (job, KEEP_RUNS),
    ]


async def test_a_run_that_was_lost_is_noted_though_its_job_never_comes_again(site: Site) -> None:
    await site.connection.execute(
        "INSERT INTO cron.job_run_details (jobid, status, start_time) VALUES (-5, 'running', now())"
    )
    async with ticking(site.ticker()):
        await until(lambda: site.ran(-5))
    assert await site.messages(-5) == [("failed", "lost: its worker or its connection went away")]


async def test_a_job_that_nobody_can_read_is_no_other_s_trouble(site: Site) -> None:
    await site.connection.execute("ALTER TABLE cron.job DISABLE TRIGGER job_checked")
    unreadable = await site.schedule("whenever", MARK, name="unreadable")
    await site.move(unreadable, -DAY)
    async with ticking(site.ticker()):
        await site.look_on()
    assert await site.marks() == 0


async def test_a_job_without_a_tick_gets_one(site: Site) -> None:
    job = await site.schedule("1 second", MARK)
    await site.connection.execute("DELETE FROM cron.tick")
    async with ticking(site.ticker()):
        await until(lambda: site.ran(job), 20)
