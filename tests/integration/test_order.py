"""One event of an aggregate at a time, each in its turn, and what happens when something fails in between."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from engine_harness import until
from events_worker.store import PartitionsDiffer, Standing
from events_worker.store.outbox import NEAR
from outbox_harness import EVENTS, MAX_JOB_BYTES, Bench, Instance, opened_bench, running
from worker_runtime.postgres import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

NEVER = 60.0


@pytest.fixture
async def bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    async with opened_bench(redis_url, database_url) as made:
        yield made


async def test_the_next_event_of_an_aggregate_is_published_when_the_last_is_handled(bench: Bench) -> None:
    first, second, third = await bench.commit(3, aggregate="a")
    (other,) = await bench.commit(aggregate="b")
    async with bench.relaying(poll_seconds=NEVER) as relaying:
        await until(lambda: holds(bench.waiting(), [first, other]))
        await relaying.turns.finish(first)
        assert await bench.waiting() == [first, other, second]
        await relaying.turns.finish(second)
        assert await bench.waiting() == [first, other, second, third]
        await relaying.turns.finish(third)
        await relaying.turns.finish(other)
    assert await bench.under_way() == 0


async def test_ends_that_come_together_are_one_commit_and_free_what_follows(bench: Bench) -> None:
    firsts = [(await bench.commit(2, aggregate=f"a{number}"))[0] for number in range(50)]
    async with bench.relaying(poll_seconds=NEVER) as relaying:
        await until(lambda: holds(bench.under_way(), 50))
        await asyncio.gather(*(relaying.turns.finish(event_id) for event_id in firsts))
        assert len(await bench.waiting()) == 100


async def test_ending_a_turn_twice_does_no_more_than_once(bench: Bench) -> None:
    first, second, third = await bench.commit(3, aggregate="a")
    async with bench.relaying(poll_seconds=NEVER) as relaying:
        await until(lambda: holds(bench.under_way(), 1))
        await relaying.turns.finish(first)
        await relaying.turns.finish(first)
        assert await bench.waiting() == [first, second]
        assert await bench.count(f"id = '{third}' AND status = 'pending'") == 1


async def test_where_an_event_stands(bench: Bench) -> None:
    first, second = await bench.commit(2, aggregate="a")
    (older,) = await bench.commit()
    async with bench.connected() as database:
        await database.execute(
            "UPDATE domain_event_outbox SET status = 'processed', processed_at = now() WHERE id = $1", UUID(older)
        )
    async with bench.relaying(poll_seconds=NEVER) as relaying:
        begin = relaying.turns.begin
        await until(lambda: holds(bench.waiting(), [first]))
        turns = await asyncio.gather(*map(begin, (first, second, older, str(uuid4()), "order-1")))
        assert [turn.standing for turn in turns] == [
            Standing.UNDER_WAY,
            Standing.PENDING,
            Standing.UNKNOWN,
            Standing.UNKNOWN,
            Standing.UNKNOWN,
        ]
        await relaying.turns.note_finished(first, ["routing"])
        await relaying.turns.note_finished(first, ["routing"])
        assert (await begin(first)).finished == {"routing"}
        await relaying.turns.finish(first)
        assert (await begin(first)).standing is Standing.HANDLED
        async with bench.connected() as database:
            await database.execute("DELETE FROM domain_event_outbox WHERE id = $1", UUID(first))
        assert (await begin(first)).standing is Standing.HANDLED


async def test_an_event_whose_claim_a_crash_took_back_is_handled_all_the_same(bench: Bench) -> None:
    """Claims wait for no disk: after a crash the outbox may say `pending` of what is at work."""
    first, second, third = await bench.commit(3, aggregate="a")
    async with bench.relaying(poll_seconds=NEVER) as relaying, bench.connected() as database:
        await until(lambda: holds(bench.waiting(), [first]))
        await database.execute("DELETE FROM domain_event_under_way")
        await database.execute(
            "UPDATE domain_event_outbox SET status = 'pending', processed_at = NULL, receipted = false"
        )
        await relaying.turns.finish(first)
        assert (await bench.row(first))["status"] == "processed"
        assert (await relaying.turns.begin(first)).standing is Standing.HANDLED
        assert await bench.waiting() == [first, second]
        assert await bench.count(f"id = '{third}' AND status = 'pending'") == 1


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_dead_letter_is_passed_by_or_waited_for_as_its_policy_says(bench: Bench, *, blocks: bool) -> None:
    first, second = await bench.commit(2, aggregate="a")
    async with bench.relaying(poll_seconds=0.01) as relaying:
        await until(lambda: holds(bench.waiting(), [first]))
        await relaying.turns.note_finished(first, ["done"])
        await relaying.turns.bury(first, "GONE: it is gone", blocks=blocks)
        dead = await bench.row(first)
        assert (dead["status"], dead["last_error"]) == ("dead_letter", "GONE: it is gone")
        (good,) = await bench.commit()
        await until(lambda: contains(bench.waiting(), good))
        assert (second in await bench.waiting()) is not blocks
        # Its job, when somebody retries it, finds what is done already, and its end lets the others on.
        assert (await relaying.turns.begin(first)).finished == {"done"}
        await relaying.turns.finish(first)
        assert (await bench.row(first))["status"] == "processed"
        await until(lambda: contains(bench.waiting(), second))


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_dead_event_that_is_made_pending_again_runs_again(bench: Bench, *, blocks: bool) -> None:
    first, second = await bench.commit(2, aggregate="a")
    async with bench.relaying() as relaying:
        await until(lambda: holds(bench.waiting(), [first]))
        await relaying.turns.note_finished(first, ["done"])
        await relaying.turns.bury(first, "GONE: it is gone", blocks=blocks)
        await fail_job(bench, first)
        if not blocks:
            await until(lambda: contains(bench.waiting(), second))
            await relaying.turns.finish(second)
        async with bench.connected() as database:
            await database.execute(
                "UPDATE domain_event_outbox SET status = 'pending', processed_at = NULL WHERE id = $1", UUID(first)
            )
        await until(lambda: contains(bench.waiting(), first))
        turn = await relaying.turns.begin(first)
        assert (turn.standing, turn.finished, turn.dead_reason) == (Standing.UNDER_WAY, frozenset({"done"}), None)
        assert await bench.under_way("dead_reason IS NOT NULL") == 0


@pytest.mark.parametrize("blocks", [False, True])
async def test_what_cannot_be_published_follows_the_policy_too(bench: Bench, *, blocks: bool) -> None:
    (huge,) = await bench.commit(aggregate="a", payload={"text": "x" * MAX_JOB_BYTES})
    (after,) = await bench.commit(aggregate="a")
    (other,) = await bench.commit(aggregate="b")
    async with bench.relaying(blocks=blocks, poll_seconds=0.01):
        await until(lambda: contains(bench.waiting(), other))
        await until(lambda: holds(bench.count("status = 'dead_letter'"), 1))
        assert (await bench.row(huge))["last_error"].startswith("PAYLOAD_TOO_LARGE: ")
        if not blocks:
            await until(lambda: contains(bench.waiting(), after))
        else:
            assert await bench.waiting() == [other]


async def test_events_that_redis_forgot_are_published_again(bench: Bench) -> None:
    ids = await bench.commit(20)
    async with bench.relaying(settled_seconds=0.2) as relaying:
        await until(lambda: holds(bench.waiting(), ids))
        await bench.redis.call("FLUSHALL")
        await until(lambda: holds(waiting_set(bench), set(ids)))
        await until(lambda: counted(relaying, 20))


async def test_an_event_whose_job_ended_without_its_turn_is_published_again(bench: Bench) -> None:
    (event_id,) = await bench.commit()
    async with bench.relaying(settled_seconds=0.2):
        await until(lambda: holds(bench.waiting(), [event_id]))
        await fail_job(bench, event_id)
        await until(lambda: holds(bench.waiting(), [event_id]))


async def test_what_is_dead_is_not_published_again(bench: Bench) -> None:
    (event_id,) = await bench.commit()
    async with bench.relaying(settled_seconds=0.0) as relaying:
        await until(lambda: holds(bench.waiting(), [event_id]))
        await relaying.turns.bury(event_id, "GONE: it is gone", blocks=True)
        await fail_job(bench, event_id)
        (later,) = await bench.commit()
        await until(lambda: contains(bench.waiting(), later))
        await bench.redis.call("LREM", EVENTS.key("wait"), 0, later)
        await bench.redis.call("DEL", EVENTS.key(later))
        await until(lambda: contains(bench.waiting(), later))
        assert await bench.waiting() == [later]


async def test_events_moved_to_the_archive_by_hand_are_found_there_and_those_of_nowhere_are_forgotten(
    bench: Bench,
) -> None:
    moved, deleted = await bench.commit(2)
    async with bench.relaying(settled_seconds=0.2):
        await until(lambda: holds(bench.waiting(), [moved, deleted]))
        async with bench.connected() as database:
            await database.execute("DELETE FROM domain_event_outbox")
            await database.execute("DELETE FROM domain_event_outbox_archive WHERE id = $1", UUID(deleted))
        await bench.redis.call("FLUSHALL")
        await until(lambda: holds(bench.waiting(), [moved]))
        await until(lambda: holds(bench.under_way(), 1))


async def test_what_a_dead_relay_had_claimed_is_published_by_its_successor(bench: Bench) -> None:
    ids = await bench.commit(10)
    async with bench.instance(lease_seconds=1.0) as dead:
        await dead.partitions.balance()
        assert len(await dead.store.claim(100, dead.partitions.tokens)) == 10
    assert await bench.waiting() == []
    async with bench.relaying(lease_seconds=1.0, settled_seconds=0.0) as successor:
        await until(lambda: holds(waiting_set(bench), set(ids)))
        assert len(successor.partitions.tokens) == 16


async def test_an_owner_that_was_replaced_claims_nothing(bench: Bench) -> None:
    await bench.commit(10)
    async with bench.instance(lease_seconds=0.3) as old, bench.instance() as new:
        await old.partitions.balance()
        believed = old.partitions.tokens
        await until(lambda: took_all(new))
        assert await old.store.claim(100, believed) == []
        assert len(await new.store.claim(100, new.partitions.tokens)) == 10


async def test_two_relays_that_both_own_everything_keep_the_order(bench: Bench) -> None:
    """Partitions only share the work out: it is the key of `domain_event_under_way` that no two relays get around."""
    aggregates = [str(number) for number in range(20)]
    ids = {name: await bench.commit(5, aggregate=name) for name in aggregates}
    options = {"poll_seconds": 0.001, "batch_size": 7}
    async with bench.instance(**options) as one, bench.instance(**options) as other:
        await one.partitions.balance()
        other.partitions.tokens = one.partitions.tokens
        async with running([one.relay, one.reconciler, other.relay, other.reconciler]):
            handled: list[str] = []
            while len(handled) < 100:
                new = [event_id for event_id in await bench.waiting() if event_id not in handled]
                ends = zip(new, itertools.cycle((one.turns, other.turns)))
                await asyncio.gather(*(turns.finish(event_id) for event_id, turns in ends))
                handled += new
    assert all([one for one in handled if one in mine] == mine for mine in ids.values())
    assert len(await bench.waiting()) == 100


async def test_a_lease_that_ran_out_claims_nothing_though_nobody_took_it(bench: Bench) -> None:
    await bench.commit(1)
    async with bench.instance(lease_seconds=0.1) as late:
        await late.partitions.balance()
        await until(lambda: holds(claimable(bench), answer=False))
        assert await late.store.claim(100, late.partitions.tokens) == []
        await late.partitions.balance()
        assert len(await late.store.claim(100, late.partitions.tokens)) == 1


async def test_partitions_are_shared_out_fairly_as_instances_come_and_go(bench: Bench) -> None:
    async with bench.instance() as one, bench.instance() as two, bench.instance() as three:
        async with running([one.partitions]):
            await until(lambda: holds(owned(one), [16]))
            async with running([two.partitions]):
                await until(lambda: holds(owned(one, two), [8, 8]))
                async with running([three.partitions]):
                    await until(lambda: holds(sorted_owned(one, two, three), [4, 6, 6]))
                await until(lambda: holds(owned(one, two), [8, 8]))
            await until(lambda: holds(owned(one), [16]))
        assert await bench.count("owner IS NULL", "domain_event_partition") == 16


async def test_the_number_of_partitions_may_not_differ(bench: Bench) -> None:
    async with bench.instance(partitions=16):
        with pytest.raises(PartitionsDiffer, match="OUTBOX_PARTITIONS is 8, and this outbox is divided into 16"):
            async with bench.instance(partitions=8):
                pass


async def test_a_crowd_of_waiting_events_does_not_hide_other_aggregates(bench: Bench) -> None:
    hot = await bench.commit(NEAR + 200, aggregate="hot")
    async with bench.relaying(poll_seconds=0.02):
        await until(lambda: holds(bench.waiting(), hot[:1]))
        behind = await bench.commit(5)
        await until(lambda: holds(waiting_set(bench), {hot[0], *behind}))


async def test_a_hint_saves_the_wait_for_the_poll(bench: Bench) -> None:
    async with bench.relaying(poll_seconds=NEVER) as relaying:
        await until(lambda: took_all(relaying))
        await until(lambda: holds(bench.waiting(), []))
        (event_id,) = await bench.commit()
        async with bench.connected() as database:
            await database.execute("NOTIFY domain_event_outbox")
        await until(lambda: holds(bench.waiting(), [event_id]))


async def test_a_claim_that_meets_another_event_of_the_aggregate_changes_nothing(bench: Bench) -> None:
    first, second = await bench.commit(2, aggregate="a")
    async with bench.instance() as instance, bench.connected() as database:
        await instance.partitions.balance()
        await database.execute(
            "INSERT INTO domain_event_under_way SELECT id, aggregate_type, aggregate_id, aggregate_hash"
            " FROM domain_event_outbox WHERE id = $1",
            UUID(second),
        )
        with pytest.raises(DatabaseUnavailable, match="UniqueViolation"):
            async with instance.database.transaction() as connection:
                await connection.execute(
                    "INSERT INTO domain_event_under_way SELECT id, aggregate_type, aggregate_id, aggregate_hash"
                    " FROM domain_event_outbox WHERE id = $1",
                    UUID(first),
                )
        assert await instance.store.claim(100, instance.partitions.tokens) == []


async def fail_job(bench: Bench, event_id: str) -> None:
    """Do what a worker does that gives up on a job."""
    await bench.redis.call("LREM", EVENTS.key("wait"), 0, event_id)
    await bench.redis.call("ZADD", EVENTS.key("failed"), 1, event_id)
    await bench.redis.call("HSET", EVENTS.key(event_id), "finishedOn", 1)


async def waiting_set(bench: Bench) -> set[str]:
    return set(await bench.waiting())


async def claimable(bench: Bench) -> bool:
    return bool(await bench.count("lease_until > clock_timestamp()", "domain_event_partition"))


async def counted(instance: Instance, reconciled: int) -> bool:
    """Tell whether so many have been; on a busy machine one may be looked for again before it is handled."""
    return bool(instance.metrics.reconciled._value.get() >= reconciled)


async def took_all(instance: Instance) -> bool:
    await instance.partitions.balance()
    return len(instance.partitions.tokens) == 16


async def owned(*instances: Instance) -> list[int]:
    return [len(instance.partitions.tokens) for instance in instances]


async def sorted_owned(*instances: Instance) -> list[int]:
    return sorted(await owned(*instances))


async def holds(question: Awaitable[object], answer: object) -> bool:
    return await question == answer


async def contains(question: Awaitable[list[str]], answer: str) -> bool:
    return answer in await question
