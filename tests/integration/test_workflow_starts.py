"""Events that start and signal workflows, by routing rules and by organisations' own: real PostgreSQL, real Redis."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4, uuid5

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from engine_harness import until
from events_worker.context import HandlerContexts
from events_worker.contracts import load_contracts
from events_worker.deferrals import Deferrals
from events_worker.dispatcher import Dispatcher
from events_worker.endpoints import RememberedEndpoints
from events_worker.event import EventJob, Replay
from events_worker.handlers import handlers
from events_worker.rules import load_rules
from events_worker.store import EndpointStore, Transactions, WakeUpStore
from events_worker.wake_up import EVERY_SECONDS, WakeUp
from handling_harness import LEAD, Handling
from outbox_harness import Bench, opened_bench, running
from rule_files import rules_file
from started_workflows import executions, save_rule, signals, workflows_through
from worker_runtime.bullmq.producer import JobQueue
from worker_runtime.outcome import DeadLetter, Defer, Done
from worker_runtime.postgres import Database, Listener
from worker_runtime.redis.connection import RedisUnavailable
from worker_runtime.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from embedded_stack import PostgresServer

START = "{name: start, event: lead.created, workflow: {start: follow-up, input: {lead: payload.leadId}}}"
MAIL = "notify: {channel: EMAIL, recipient: {email: payload.email}, body: hello}"
WAITS = [{"id": "paid", "wait_for_event": {"event": "lead.converted", "correlation": "input.leadId"}}]
CONVERTED = {"leadId": "l-1", "tenantId": "t-1", "convertedBy": "u-1"}


@dataclass
class Desk:
    """An events-worker's handlers, and what they have written."""

    bench: Bench
    work: Handling
    connection: Any
    registry: CollectorRegistry

    async def handle(self, event_type: str = "lead.created", **columns: Any) -> Any:
        """Commit an event and run its job; return how that ended."""
        return await self.work.run(await self.commit(event_type, **columns))

    async def commit(self, event_type: str = "lead.created", **columns: Any) -> str:
        (event_id,) = await self.bench.commit(1, event_type, **{"payload": LEAD, **columns})
        await until(lambda: self.work.published(event_id))
        return event_id

    async def started(self) -> list[tuple[str, str]]:
        return [(one["name"], one["status"]) for one in await executions(self.connection)]

    async def save(self, name: str, event: str | None = None, when: str | None = None, **more: Any) -> None:
        await save_rule(self.connection, name, event, when, **more)

    def counted(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("intelliflow_workflow_event_starts_total", {"outcome": outcome})


@asynccontextmanager
async def opened_desk(bench: Bench, folder: Path, rules: Sequence[str], queue: Any = None) -> AsyncIterator[Desk]:
    registry = CollectorRegistry()
    async with (
        bench.instance(balance_seconds=0.05) as instance,
        Transactions(bench.database_url, 5) as transactions,
        Database(bench.database_url) as database,
        bench.connected() as connection,
    ):
        queues = queue or (lambda key: JobQueue(bench.redis, WorkerSettings().queue_name(key)))
        endpoints = RememberedEndpoints(EndpointStore(database))
        workflows = workflows_through(transactions, registry)
        read = load_rules(rules_file(folder, rules)).rules
        made = handlers(read, queues, endpoints, workflows, Deferrals(None))
        dispatcher = Dispatcher(load_contracts(), made, instance.turns, HandlerContexts(queues, transactions))
        async with running(instance.loops):
            yield Desk(bench, Handling(bench, instance, dispatcher), connection, registry)


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


@pytest.fixture
async def desk(bench: Bench, tmp_path: Path) -> AsyncIterator[Desk]:
    async with opened_desk(bench, tmp_path, [START]) as made:
        await made.save("follow-up")
        yield made


class TestByARoutingRule:
    async def test_an_event_starts_one_execution(self, desk: Desk) -> None:
        event_id = await desk.commit()
        execution_id = uuid5(uuid5(UUID(event_id), "start"), "workflow")
        assert await desk.work.run(event_id) == Done({"routing": [str(execution_id)]})
        (one,) = await executions(desk.connection)
        assert (one["id"], one["organization_id"], one["name"], one["rule_version"], one["status"]) == (
            (execution_id, "t-1", "follow-up", 1, "queued")
        )
        assert one["input"] == {"lead": "l-1"}
        sent = await desk.connection.fetch("SELECT message->>'execution_id' FROM pgmq.q_workflow_execution_queue")
        assert [row[0] for row in sent] == [str(execution_id)]
        # An organisation without a row there has not enabled workflows: its executions wait for that.
        assert await desk.connection.fetchval("SELECT count(*) FROM fw_module_settings") == 0

    async def test_handled_by_two_processes_at_once_it_starts_one(self, desk: Desk, tmp_path: Path) -> None:
        async with opened_desk(desk.bench, tmp_path, [START]) as other:
            ids = [await desk.commit() for _ in range(20)]
            outcomes = await asyncio.gather(*(one.work.run(event_id) for event_id in ids for one in (desk, other)))
        assert all(isinstance(outcome, Done) for outcome in outcomes)
        assert len(await executions(desk.connection)) == 20

    async def test_what_redis_made_it_do_again_is_a_repetition(self, bench: Bench, tmp_path: Path) -> None:
        both = START.removesuffix("}") + f", {MAIL}}}"
        away = [True]

        def queue(key: str) -> JobQueue:
            if away.pop() if away else False:
                raise RedisUnavailable("away")
            return JobQueue(bench.redis, WorkerSettings().queue_name(key))

        async with opened_desk(bench, tmp_path, [both], queue) as desk:
            await desk.save("follow-up")
            event_id = await desk.commit()
            assert isinstance(await desk.work.run(event_id), Defer)
            # Switched off since: what has begun is not taken back, nor is its event a dead letter.
            await desk.connection.execute("UPDATE fw_workflow_rules SET active = false")
            assert isinstance(await desk.work.run(event_id), Done)
            assert len(await executions(desk.connection)) == 1
            assert [desk.counted(one) for one in ("started", "repeated", "refused")] == [1, 1, 0]

    async def test_a_workflow_that_the_organisation_lacks_is_a_dead_letter_and_no_job_is_made(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        rules = [START, f"{{name: mail, event: lead.created, {MAIL}}}"]
        async with opened_desk(bench, tmp_path, rules) as desk:
            await desk.save("follow-up", organization="t-2")
            outcome = await desk.handle()
            sentence = "handler routing: rule start: workflow: organisation t-1 has no active workflow follow-up"
            assert outcome == DeadLetter("RULE_FAILED", sentence)
            assert await executions(desk.connection) == []
            waiting = await bench.redis.call("LLEN", WorkerSettings().queue_name("EMAIL").key("wait"))
            assert (waiting, desk.counted("refused")) == (0, 1)

    async def test_the_same_key_starts_one_of_several_events(self, bench: Bench, tmp_path: Path) -> None:
        keyed = START.replace("start: follow-up", "start: follow-up, key: payload.leadId")
        async with opened_desk(bench, tmp_path, [keyed]) as desk:
            await desk.save("follow-up")
            for _ in range(3):
                assert isinstance(await desk.handle(), Done)
            assert [one["idempotency_key"] for one in await executions(desk.connection)] == ["l-1"]
            assert (desk.counted("started"), desk.counted("repeated")) == (1, 2)

    async def test_one_event_s_mistake_is_no_other_s_though_they_go_together(self, desk: Desk) -> None:
        events = [straight_to_the_queue("lead.created", **LEAD) for _ in range(30)]
        strangers = [
            straight_to_the_queue("lead.created", **LEAD).model_copy(update={"tenant_id": f"stranger-{number}"})
            for number in range(10)
        ]
        mixed = [
            event for three in zip(events[::3], events[1::3], events[2::3], strangers, strict=True) for event in three
        ]
        outcomes = await asyncio.gather(*(desk.work.handle(event) for event in mixed))
        assert [type(outcome) for outcome in outcomes] == [Done, Done, Done, DeadLetter] * 10
        assert len(await executions(desk.connection)) == 30
        assert (desk.counted("started"), desk.counted("refused")) == (30, 10)

    async def test_processes_that_start_the_same_keys_at_once_do_not_hinder_each_other(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        keyed = START.replace("start: follow-up", "start: follow-up, key: payload.leadId")
        async with opened_desk(bench, tmp_path, [keyed]) as desk, opened_desk(bench, tmp_path, [keyed]) as other:
            await desk.save("follow-up")
            keys = [LEAD | {"leadId": f"l-{number}"} for number in range(60)]
            forth = [desk.work.handle(straight_to_the_queue("lead.created", **key)) for key in keys]
            back = [other.work.handle(straight_to_the_queue("lead.created", **key)) for key in keys[::-1]]
            outcomes = await asyncio.gather(*forth, *back)
            assert all(isinstance(outcome, Done) for outcome in outcomes)
            assert len(await executions(desk.connection)) == 60

    async def test_a_workflow_in_python_is_started_by_its_name(self, bench: Bench, tmp_path: Path) -> None:
        async with opened_desk(bench, tmp_path, [START]) as desk:
            await desk.connection.execute("INSERT INTO fw_workflow_code VALUES ('follow-up', 1), ('follow-up', 2)")
            assert isinstance(await desk.handle(), Done)
            (one,) = await executions(desk.connection)
            assert (one["workflow"], one["workflow_version"]) == ("follow-up", 2)

    async def test_a_signal_is_told_once(self, bench: Bench, tmp_path: Path) -> None:
        rule = "{name: tell, event: lead.created, workflow: {signal: greeted, correlation: payload.email}}"
        async with opened_desk(bench, tmp_path, [rule]) as desk, opened_desk(bench, tmp_path, [rule]) as other:
            event_id = await desk.commit()
            await asyncio.gather(desk.work.run(event_id), other.work.run(event_id))
            assert await signals(desk.connection) == [("t-1", "greeted", "ada@example.com", LEAD)]

    async def test_what_postgres_cannot_hold_is_written_as_escapes(self, bench: Bench, tmp_path: Path) -> None:
        rule = "{name: start, event: '*', workflow: {start: follow-up, key: payload.note}}"
        async with opened_desk(bench, tmp_path, [rule]) as desk:
            await desk.save("follow-up")
            assert isinstance(await desk.work.handle(straight_to_the_queue(note="a\0\ud800")), Done)
            (one,) = await executions(desk.connection)
            assert one["input"]["payload"]["note"] == one["idempotency_key"] == "a\\x00\\ud800"


def straight_to_the_queue(event_type: str = "thing.happened", **payload: Any) -> EventJob:
    """Return an event that was in no outbox."""
    return EventJob.model_validate(
        {
            "eventId": str(uuid4()),
            "eventType": event_type,
            "aggregateType": "thing",
            "aggregateId": "a-1",
            "tenantId": "t-1",
            "payload": payload,
            "metadata": {"correlationId": "c-1", "timestamp": "2026-01-01T10:00:00Z", "version": "1.0"},
            "occurredAt": "2026-01-01T10:00:00Z",
        }
    )


@pytest.fixture
async def tenants(bench: Bench, tmp_path: Path) -> AsyncIterator[Desk]:
    """A desk without routing rules of interest."""
    async with opened_desk(bench, tmp_path, ["{name: none, event: nothing.at_all, workflow: {start: x}}"]) as made:
        yield made


class TestByAnOrganisationsRule:
    async def test_its_active_rules_that_fit_start(self, tenants: Desk) -> None:
        await tenants.save("exact", "lead.created")
        await tenants.save("family", "lead.*", "payload.email and event.tenantId == 't-1'")
        await tenants.save("all", "*")
        await tenants.save("false", "lead.created", "payload.score")
        await tenants.save("another event", "lead.assigned")
        await tenants.save("called only")
        await tenants.save("underscore", "lead_created")
        await tenants.save("neighbour's", "lead.created", organization="t-2")
        await tenants.save("inactive", "lead.created")
        await tenants.connection.execute("UPDATE fw_workflow_rules SET active = false WHERE name = 'inactive'")
        event_id = await tenants.commit()
        outcome = await tenants.work.run(event_id)
        # All in one statement: which of them is first is not said.
        started = {one["name"]: one for one in await executions(tenants.connection)}
        assert started.keys() == {"all", "family", "exact"}
        assert {one["status"] for one in started.values()} == {"queued"}
        assert isinstance(outcome, Done)
        assert sorted(outcome.result["workflows"]) == sorted(str(one["id"]) for one in started.values())
        first = started["all"]
        assert first["input"]["event"]["eventId"] == event_id
        assert (first["input"]["payload"], first["input"]["metadata"]["version"]) == (LEAD, "1.0")

    async def test_a_rule_is_there_with_its_commit_and_gone_with_the_next(self, tenants: Desk) -> None:
        assert await tenants.handle() == Done({"routing": []})
        await tenants.save("new", "lead.created")
        await tenants.handle()
        await tenants.save("new", "lead.created", "payload.email == 'nobody'")
        await tenants.handle()
        await tenants.save("new", "lead.assigned")
        assert await tenants.handle() == Done({"routing": []})
        assert await tenants.started() == [("new", "queued")]

    @pytest.mark.parametrize(
        ("when", "error"),
        [
            ("payload.score > 3", "`payload.score > 3`: there is no field score"),
            ("payload.", "`payload.`: "),
            ("steps.a", "`steps.a`: unknown name steps"),
        ],
    )
    async def test_a_condition_that_fails_is_an_execution_that_failed(
        self, tenants: Desk, when: str, error: str
    ) -> None:
        await tenants.save("bad", "lead.created", when)
        await tenants.save("good", "lead.created")
        assert isinstance(await tenants.handle(), Done)
        assert sorted(await tenants.started()) == [("bad", "failed"), ("good", "queued")]
        bad = next(one for one in await executions(tenants.connection) if one["name"] == "bad")
        assert bad["last_error"].startswith(f"INVALID_TRIGGER: when: {error}")
        assert bad["completed_at"] is not None
        assert tenants.counted("refused") == 1
        sent = await tenants.connection.fetchval("SELECT count(*) FROM pgmq.q_workflow_execution_queue")
        assert sent == 1

    async def test_it_is_nobody_s_business_how_a_routing_rule_fares(self, bench: Bench, tmp_path: Path) -> None:
        away = [True, True]

        def queue(key: str) -> JobQueue:
            if away.pop() if away else False:
                raise RedisUnavailable("away")
            return JobQueue(bench.redis, WorkerSettings().queue_name(key))

        async with opened_desk(bench, tmp_path, [f"{{name: mail, event: lead.created, {MAIL}}}"], queue) as desk:
            await desk.save("own", "lead.created")
            event_id = await desk.commit()
            outcomes = [await desk.work.run(event_id) for _ in range(3)]
            assert [type(outcome) for outcome in outcomes] == [Defer, Defer, Done]
            assert (desk.counted("started"), desk.counted("repeated")) == (1, 0)
            assert "workflows" not in outcomes[-1].result  # type: ignore[union-attr]

    async def test_a_replay_starts_anew_and_once(self, tenants: Desk) -> None:
        await tenants.save("own", "lead.created")
        event_id = await tenants.commit()
        fields = await tenants.bench.job(event_id)
        await tenants.work.run(event_id)
        replay = Replay(id=uuid4(), handlers=("workflows",))
        again = EventJob.model_validate_json(fields["data"]).model_copy(update={"replay": replay})
        for _ in range(2):
            assert isinstance(await tenants.work.handle(again), Done)
        assert len(await executions(tenants.connection)) == 2

    async def test_one_that_came_past_the_outbox_counts_too(self, tenants: Desk) -> None:
        await tenants.save("own", "thing.*")
        outcome = await tenants.work.handle(straight_to_the_queue())
        assert isinstance(outcome, Done)
        assert await tenants.started() == [("own", "queued")]

    async def test_a_rule_that_is_switched_off_meanwhile_is_asked_for_again(self, tenants: Desk) -> None:
        await tenants.save("own", "lead.created")
        # The rule is found, and gone when it is started: as if somebody had been faster.
        await tenants.connection.execute(
            "ALTER FUNCTION fw_workflow_start RENAME TO the_function;"
            "CREATE FUNCTION fw_workflow_start(a text, b text, c jsonb, d text, e uuid, f text) RETURNS uuid"
            " LANGUAGE plpgsql AS $$ BEGIN UPDATE fw_workflow_rules SET active = false;"
            " RETURN the_function(a, b, c, d, e, f); END $$"
        )
        event_id = await tenants.commit()
        assert isinstance(await tenants.work.run(event_id), Defer)
        await tenants.connection.execute("UPDATE fw_workflow_rules SET active = false")
        assert isinstance(await tenants.work.run(event_id), Done)
        assert await tenants.started() == []


class TestEventsThatAreWaitedFor:
    async def test_an_event_that_a_definition_waits_for_is_kept_as_a_signal(self, tenants: Desk) -> None:
        await tenants.handle("lead.converted", payload=CONVERTED)
        nested = [{"id": "if", "condition": {"if": "true", "then": [{"id": "b", "parallel": {"branches": [WAITS]}}]}}]
        await tenants.save("waits", steps=nested)
        await tenants.handle("lead.converted", payload=CONVERTED, aggregate="l-1")
        await tenants.handle("lead.created", aggregate="l-1")
        assert await signals(tenants.connection) == [("t-1", "lead.converted", "l-1", CONVERTED)]

    async def test_somebody_else_s_waits_keep_nothing(self, tenants: Desk) -> None:
        await tenants.save("waits", steps=WAITS, organization="t-2")
        assert await tenants.handle("lead.converted", payload=CONVERTED) == Done({"routing": []})
        assert await signals(tenants.connection) == []

    async def test_whoever_waits_is_told_from_the_commit_of_the_wait_on(self, tenants: Desk) -> None:
        """As a workflow in Python does, of which nobody knows beforehand what it waits for."""
        await tenants.connection.execute("INSERT INTO fw_workflow_code VALUES ('python', 1)")
        execution = await tenants.connection.fetchval("SELECT fw_workflow_start('t-1', 'python')")
        await tenants.handle("lead.converted", payload=CONVERTED, aggregate="l-1")
        await tenants.connection.execute(
            "UPDATE fw_workflow_executions SET status = 'waiting', ready_at = 'infinity', lease_token = 1"
        )
        await tenants.connection.execute(
            "INSERT INTO fw_workflow_waits (execution_id, step, organization_id, event_name, correlation)"
            " VALUES ($1, 'paid', 't-1', 'lead.converted', 'l-1')",
            execution,
        )
        await tenants.handle("lead.converted", payload=CONVERTED, aggregate="another")
        assert await tenants.connection.fetchval("SELECT ready_at = 'infinity' FROM fw_workflow_executions")
        event_id = await tenants.commit("lead.converted", payload=CONVERTED, aggregate="l-1")
        assert await tenants.work.run(event_id) == Done({"routing": [], "workflows": []})
        assert await tenants.connection.fetchval("SELECT ready_at <= clock_timestamp() FROM fw_workflow_executions")
        assert [signal[2] for signal in await signals(tenants.connection)] == ["another", "l-1"]

    async def test_what_is_no_json_is_left_out(self, tenants: Desk) -> None:
        await tenants.connection.execute("INSERT INTO fw_workflow_awaited VALUES ('t-1', 'thing.happened')")
        # Only past the outbox, which holds JSON, can there be such a number.
        assert isinstance(await tenants.work.handle(straight_to_the_queue(share=float("inf"))), Done)
        assert await signals(tenants.connection) == [("t-1", "thing.happened", "a-1", {"share": None})]

    async def test_a_correlation_that_no_index_holds_is_a_dead_letter(self, tenants: Desk) -> None:
        await tenants.connection.execute("INSERT INTO fw_workflow_awaited VALUES ('t-1', 'thing.happened')")
        long = "".join(str(uuid4()) for _ in range(200))
        outcome = await tenants.work.handle(straight_to_the_queue().model_copy(update={"aggregate_id": long}))
        sentence = "handler workflows: a key or correlation is longer than an index takes"
        assert outcome == DeadLetter("WORKFLOW_REFUSED", sentence)

    @pytest.mark.parametrize("rule", [True, False])
    async def test_more_than_an_execution_is_given_is_a_dead_letter(self, tenants: Desk, rule: bool) -> None:  # noqa: FBT001
        if rule:
            await tenants.save("good", "thing.happened")
        else:
            await tenants.connection.execute("INSERT INTO fw_workflow_awaited VALUES ('t-1', 'thing.happened')")
        outcome = await tenants.work.handle(straight_to_the_queue(text="".join(str(uuid4()) for _ in range(150_000))))
        sentence = "handler workflows: a workflow is given, or told, 4 MiB at most"
        assert outcome == DeadLetter("WORKFLOW_REFUSED", sentence)

    async def test_handled_twice_it_is_one_signal(self, tenants: Desk) -> None:
        await tenants.save("waits", steps=WAITS)
        of = straight_to_the_queue().model_copy(update={"event_type": "lead.converted", "payload": CONVERTED})
        for _ in range(2):
            await tenants.work.handle(of)
        assert len(await signals(tenants.connection)) == 1


async def test_many_commits_share_a_notification(database_url: str) -> None:
    heard: list[float] = []
    listener = Listener("workflow_executions", lambda: heard.append(time.monotonic()))
    async with Database(database_url) as database, Database(database_url, listener=listener) as listening:
        await listening.ping()
        wake_up = WakeUp(WakeUpStore(database))
        async with running([wake_up]):
            while len(heard) < 5:
                wake_up.hint()
                await asyncio.sleep(0)
            assert heard[-1] - heard[0] > 3 * EVERY_SECONDS


async def test_a_server_that_is_away_costs_a_hint_and_nothing_else(own_postgres: PostgresServer) -> None:
    heard = asyncio.Event()
    with capture_logs() as logs:
        async with Database(own_postgres.url) as database:
            wake_up = WakeUp(WakeUpStore(database))

            async def lost() -> bool:
                return any(line["event"] == "wake_up_lost" for line in logs)

            async def told() -> bool:
                wake_up.hint()
                return heard.is_set()

            async with running([wake_up]):
                own_postgres.kill()
                wake_up.hint()
                await until(lost)
                own_postgres.start()
                async with Database(own_postgres.url, listener=Listener("workflow_executions", heard.set)) as listening:
                    await listening.ping()
                    await until(told)
