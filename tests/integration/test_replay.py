"""Handled events once more: for chosen handlers, with effects of their own, beside everything else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from uuid import UUID, uuid4, uuid5

import pytest
import redis

from command_line import Operator, operator
from events_worker.context import HandlerContexts
from events_worker.contracts import load_contracts
from events_worker.dispatcher import Dispatcher
from events_worker.event import EventJob, Replay
from events_worker.handlers.python import PythonHandler
from events_worker.turns import Turns
from worker_runtime.outcome import DeadLetter, Done, Retry
from worker_runtime.testing import job_for
from worker_suite import Suite, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_stack import Mailbox
    from events_worker.context import HandlerContext
    from worker_runtime.job import Job

__all__ = ["operator"]

LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}
EVENTS = "intelliflow:events"
REPLAY = Replay(id=uuid4(), handlers=("counting", "failing"))


def finish(operator: Operator, *ids: str) -> None:
    operator.database.execute(
        "UPDATE domain_event_outbox SET status = 'processed', processed_at = clock_timestamp(), receipted = true"
        " WHERE id = ANY (%s)",
        [list(ids)],
    )


def archive(operator: Operator, *ids: str) -> None:
    operator.database.execute("DELETE FROM domain_event_outbox WHERE id = ANY (%s)", [list(ids)])


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def waiting(store: redis.Redis) -> list[str]:
    ids: Any = store.lrange(f"{EVENTS}:wait", 0, -1)
    return list(reversed(ids))


def job_of(event_id: str = "", replay: Replay | None = REPLAY) -> Job[EventJob]:
    event = EventJob.model_validate(
        {
            "eventId": event_id or str(uuid4()),
            "eventType": "lead.created",
            "aggregateType": "lead",
            "aggregateId": "l-1",
            "tenantId": "t-1",
            "payload": LEAD,
            "metadata": {"correlationId": "c-1", "timestamp": "2026-01-01T10:00:00Z", "version": "1.0"},
            "occurredAt": "2026-01-01T10:00:00Z",
        }
    ).model_copy(update={"replay": replay})
    return job_for(event, job_id=event.effects_id, name=event.event_type, queue=EVENTS, created_at=0.0)


class Handlers:
    """Three handlers, and what they were called with."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.others: list[str] = []

    async def counting(self, _: EventJob, context: HandlerContext) -> None:
        self.keys.append(context.idempotency_key)

    async def failing(self, _: EventJob, __: HandlerContext) -> None:
        raise RuntimeError("not yet")

    async def other(self, event: EventJob, _: HandlerContext) -> None:
        self.others.append(event.event_id)

    @property
    def dispatcher(self) -> Dispatcher:
        made = [PythonHandler(one.__name__, "lead.*", 5.0, one) for one in (self.counting, self.failing, self.other)]
        # Nobody is asked for a turn, and nobody keeps a receipt.
        return Dispatcher(load_contracts(), made, Turns(Mock(), Mock()), HandlerContexts(Mock(), Mock()))


async def test_a_replay_runs_the_chosen_handlers_and_no_other_without_turns() -> None:
    handlers = Handlers()
    outcome = await handlers.dispatcher.handle(job_of())
    assert outcome == Retry("HANDLER_FAILED", "handler failing: RuntimeError")
    assert (len(handlers.keys), handlers.others) == (1, [])
    only = REPLAY.model_copy(update={"handlers": ("counting",)})
    assert await handlers.dispatcher.handle(job_of(replay=only)) == Done({"counting": None})


async def test_the_effects_of_a_replay_have_ids_of_their_own_and_keep_them() -> None:
    handlers, event_id = Handlers(), str(uuid4())
    only = REPLAY.model_copy(update={"handlers": ("counting",)})
    other = only.model_copy(update={"id": uuid4()})
    for replay in (only, only, other):
        await handlers.dispatcher.handle(job_of(event_id, replay))
    first, again, another = handlers.keys
    assert first == again != another
    assert first == str(uuid5(uuid5(only.id, event_id), "counting"))
    assert uuid5(UUID(event_id), "counting") not in {UUID(key) for key in handlers.keys}


async def test_a_replay_for_a_handler_that_is_not_here_is_a_dead_letter() -> None:
    handlers = Handlers()
    strange = REPLAY.model_copy(update={"handlers": ("counting", "couting")})
    outcome = await handlers.dispatcher.handle(job_of(replay=strange))
    assert outcome == DeadLetter(
        "UNKNOWN_HANDLER", "the replay names couting; here are ['counting', 'failing', 'other']"
    )
    assert handlers.keys == []


def test_a_time_range_is_replayed_in_its_order_from_the_outbox_and_the_archive(
    operator: Operator, store: redis.Redis
) -> None:
    old, archived, kept, young = (operator.commit(payload=LEAD) for _ in range(4))
    other_type = operator.commit("opportunity.won")
    pending, dead = operator.commit(payload=LEAD), operator.dead()
    under_way = operator.commit(payload=LEAD)
    finish(operator, old, archived, kept, young, other_type, under_way)
    operator.under_way(under_way)
    for event_id, hours in ((old, 30), (archived, 20), (kept, 10), (other_type, 10)):
        operator.database.execute(
            "UPDATE domain_event_outbox SET created_at = now() - make_interval(hours => %s) WHERE id = %s",
            [hours, event_id],
        )
    archive(operator, old, archived)
    line = "outbox replay --from 24h --to 5h --type lead.* --handlers routing,audit"
    dry = operator.run(f"{line} -o json")
    assert (dry.code, dry.rows) == (5, [{"type": "lead.created", "events": 2}])
    assert waiting(store) == []
    (done,) = operator.json(f"{line} --apply --by ann", "--reason", "audit was new")
    assert (done["matched"], done["added"]) == (2, 2)
    replay_id = UUID(done["replayId"])
    assert waiting(store) == [str(uuid5(replay_id, event_id)) for event_id in (archived, kept)]
    body = json.loads(store.hget(f"{EVENTS}:{waiting(store)[0]}", "data") or "")
    assert body["eventId"] == archived
    assert body["replay"] == {"id": str(replay_id), "handlers": ["routing", "audit"]}
    assert EventJob.model_validate(body).effects_id == waiting(store)[0]
    assert operator.json(f"outbox show {replay_id}")["history"][0]["reason"] == "audit was new"
    everything = operator.json("outbox replay --from 48h --handlers routing --apply")
    assert everything[0]["added"] == 5
    assert {pending, dead, under_way, young}.isdisjoint(waiting(store))


def test_an_aggregate_is_replayed_wherever_its_events_are(operator: Operator, store: redis.Redis) -> None:
    first, second, third = (operator.commit(aggregate="a:1", payload=LEAD) for _ in range(3))
    other = operator.commit(aggregate="b")
    finish(operator, first, second, third, other)
    archive(operator, first, second)
    (done,) = operator.json("outbox replay --aggregate lead:a:1 --handlers routing --apply")
    replay_id = UUID(done["replayId"])
    assert waiting(store) == [str(uuid5(replay_id, event_id)) for event_id in (first, second, third)]
    # The same replay again adds nothing; behind an event, only what follows it.
    again = f"outbox replay --aggregate lead:a:1 --handlers routing --apply --replay-id {replay_id}"
    assert operator.json(again)[0]["added"] == 3
    assert len(waiting(store)) == 3
    sequence = operator.value("SELECT position FROM domain_event_outbox_archive WHERE id = %s", second)
    assert operator.json(f"{again} --after {sequence}")[0]["added"] == 1


def test_a_replay_says_what_it_needs(operator: Operator) -> None:
    for line in ("--from 1h", "--handlers routing", "--from yesterday --handlers a", "--aggregate a --handlers a"):
        assert operator.run(f"outbox replay {line} --apply").code == 2
    assert operator.json("outbox replay --from 1h --handlers routing --apply")[0]["added"] == 0


def test_a_replay_waits_for_room_keeps_its_rate_and_can_be_stopped(
    operator: Operator, store: redis.Redis, database_url: str, redis_url: str
) -> None:
    finish(operator, *(operator.commit(payload=LEAD) for _ in range(30)))
    command = ["outbox", "replay", "--from", "1h", "--handlers", "routing", "--rate", "50/s", "--most-waiting", "15"]
    process = subprocess.Popen(
        [sys.executable, "-m", "worker_ops", *command, "--apply", "-o", "json"],
        env=os.environ | {"DATABASE_URL": database_url, "REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: len(waiting(store)) >= 20, within=40, what="the first jobs of the replay")
        time.sleep(1.0)  # That nothing more comes cannot be awaited.
        assert len(waiting(store)) == 20
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 4, err
    (row,) = json.loads(out)
    store.delete(f"{EVENTS}:wait")
    assert f"--replay-id {row['replayId']} --after {row['lastSequence']}" in err
    line = f"outbox replay --from 1h --handlers routing --replay-id {row['replayId']} --after {row['lastSequence']}"
    assert operator.json(f"{line} --apply")[0]["added"] == 10


def test_a_replayed_lead_is_welcomed_again_by_another_notification(
    operator: Operator, store: redis.Redis, database_url: str, redis_url: str, mailbox: Mailbox, tmp_path: Path
) -> None:
    suite = Suite(redis_url, database_url, mailbox, tmp_path)
    try:
        suite.events_worker().ready()
        (event_id,) = suite.commit_leads(1)
        wait_for(lambda: store.zscore(f"{EVENTS}:completed", event_id), what="the event being handled")
        wait_for(lambda: operator.json("outbox lag")[0]["underWay"] == 0, what="the event's end")
        (done,) = operator.json("outbox replay --from 1h --handlers routing --apply")
        job_id = str(uuid5(UUID(done["replayId"]), event_id))
        wait_for(lambda: store.zscore(f"{EVENTS}:completed", job_id), what="the replayed event being handled")
        mails: Any = store.lrange("intelliflow:notifications:email:wait", 0, -1)
        assert sorted(mails) == sorted(str(uuid5(UUID(effects), "lead-welcome")) for effects in (event_id, job_id))
    finally:
        suite.end()
