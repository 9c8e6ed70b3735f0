"""The jobs-worker's loops on a real PostgreSQL: what attempts leave, who may write it, what becomes of the dead."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from procrastinate import RetryDecision, RetryStrategy
from procrastinate.exceptions import JobAborted

from jobs_harness import Desk, desk, engine
from jobs_worker.backoff import Backoff
from jobs_worker.deadline import deadline
from jobs_worker.ending import Ending, Later
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from procrastinate import JobContext

AT_ONCE = RetryStrategy(max_attempts=2)


@pytest.fixture
async def at(jobs_database_url: str) -> AsyncIterator[Desk]:
    async with desk(jobs_database_url) as opened:
        yield opened


def total(counter: Any) -> float:
    value: float = counter._value.get()
    return value


class TestAnAttempt:
    async def test_succeeds_once_with_its_arguments_and_its_times(self, at: Desk) -> None:
        seen: list[Any] = []

        @at.app.task(queue="mail")
        async def note(**given: Any) -> None:
            seen.append(given)

        async with engine(at) as one:
            job = await note.defer_async(text="á\u0000"[:1], number=3, nested={"a": [None, True]})
            row = await at.until(job, "succeeded")
            assert seen == [{"text": "á", "number": 3, "nested": {"a": [None, True]}}]
            assert (row["attempts"], row["worker_id"], await at.errors(job)) == (1, None, [])
            assert row["created_at"] <= row["started_at"] <= row["finished_at"]
            assert total(one.of("mail").processed) == 1

    async def test_of_a_plain_function_is_beside_the_event_loop(self, at: Desk) -> None:
        threads: list[str] = []

        @at.app.task
        def plain() -> None:
            threads.append(threading.current_thread().name)

        async with engine(at):
            await at.until(await plain.defer_async(), "succeeded")
        assert threads[0].startswith("task")

    async def test_that_fails_leaves_its_error_and_traceback_each_time(self, at: Desk) -> None:
        @at.app.task(retry=AT_ONCE)
        async def fails() -> None:
            raise ValueError("no luck for ada@example.com\x00")

        async with engine(at) as one:
            row = await at.until(await fails.defer_async(), "failed")
            sentence = "ValueError: no luck for ***@example.com\\0"
            assert row["attempts"] == 3
            assert await at.errors(row["id"]) == [(number, sentence) for number in (1, 2, 3)]
            traceback = await at.value("SELECT error_traceback FROM procrastinate_events WHERE attempt = 3")
            assert "raise ValueError" in traceback
            assert "ada@" not in traceback
            counted = one.of()
            assert (total(counted.failed), total(counted.dead_lettered), total(counted.processed)) == (3, 1, 3)

    async def test_is_retried_where_and_when_its_strategy_says(self, at: Desk) -> None:
        class Elsewhere(RetryStrategy):
            def get_retry_decision(self, **_: Any) -> RetryDecision:
                return RetryDecision(retry_in={"minutes": 5}, queue="slow", priority=7, lock="l")

        @at.app.task(retry=Elsewhere())
        async def fails() -> None:
            raise ValueError

        async with engine(at):
            job = await fails.defer_async()
            await at.soon("SELECT attempts = 1 FROM procrastinate_jobs WHERE id = $1", job)
            row = await at.job(job)
        assert (row["status"], row["queue_name"], row["priority"], row["lock"]) == ("todo", "slow", 7, "l")
        assert timedelta(minutes=4) < row["scheduled_at"] - datetime.now(UTC) <= timedelta(minutes=5)

    async def test_is_not_retried_for_what_is_permanent(self, at: Desk) -> None:
        @at.app.task(retry=Backoff())
        async def wrong() -> None:
            raise PermanentError("INVALID_ARGUMENT", "to: is no address")

        async with engine(at):
            row = await at.until(await wrong.defer_async(), "failed")
            assert await at.errors(row["id"]) == [(1, "PermanentError: INVALID_ARGUMENT: to: is no address")]

    async def test_that_cannot_be_made_now_costs_nothing(self, at: Desk) -> None:
        calls: list[float] = []

        @at.app.task
        async def puts_off() -> None:
            calls.append(time.monotonic())
            if len(calls) < 4:
                raise Later("the other side asks for it", 0.1)

        async with engine(at):
            row = await at.until(await puts_off.defer_async(), "succeeded")
        assert (len(calls), row["attempts"], await at.errors(row["id"])) == (4, 1, [])
        assert calls[1] - calls[0] >= 0.1

    @pytest.mark.parametrize("kind", ["coroutine", "function"])
    async def test_ends_at_its_deadline(self, at: Desk, kind: str) -> None:
        let_go = threading.Event()

        @at.app.task(name="coroutine")
        @deadline(0.2)
        async def _coroutine() -> None:
            await asyncio.sleep(60)

        @at.app.task(name="function")
        @deadline(0.2)
        def _function() -> None:
            let_go.wait(60)

        async with engine(at, slots=1) as one:
            job = await at.app.configure_task(kind).defer_async()
            await at.until(job, "failed")
            assert await at.errors(job) == [(1, "DeadlineExceeded: the attempt took longer than 0.2 s")]
            # A thread cannot be ended: it keeps its slot until it does.
            assert len(one.jobs._left_behind) == (kind == "function")
            let_go.set()
            await at.until(await at.app.configure_task("coroutine").defer_async(), "failed")

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RecursionError("deep"), MemoryError()])
    async def test_that_raises_something_odd_is_an_attempt_that_failed(self, at: Desk, error: BaseException) -> None:
        @at.app.task
        def odd() -> None:
            raise error

        async with engine(at):
            await at.until(await odd.defer_async(), "failed")

    async def test_of_a_task_that_no_worker_here_has_is_retried(self, at: Desk) -> None:
        async with engine(at):
            job = await at.app.configure_task("unknown").defer_async()
            await at.soon("SELECT attempts = 1 FROM procrastinate_jobs WHERE id = $1", job)
            row = await at.job(job)
            assert row["status"] == "todo"
            assert row["scheduled_at"] > datetime.now(UTC)
            ((_, error),) = await at.errors(job)
            assert "this worker has no task unknown: name its package in JOB_QUEUE_PACKAGES" in error

    async def test_that_somebody_wants_aborted_is(self, at: Desk) -> None:
        begun = asyncio.Event()

        @at.app.task
        async def long() -> None:
            begun.set()
            await asyncio.sleep(60)

        @at.app.task(pass_context=True)
        def polite(context: JobContext) -> None:
            while not context.should_abort():
                time.sleep(0.01)
            raise JobAborted

        async with engine(at):
            for task in (long, polite):
                job = await task.defer_async()
                await at.until(job, "doing")
                assert await at.app.job_manager.cancel_job_by_id_async(job, abort=True)
                await at.until(job, "aborted")
        assert begun.is_set()


class TestWhoMayWrite:
    async def test_a_job_that_was_taken_from_a_worker_is_not_ended_by_it(self, at: Desk) -> None:
        gate, runs = asyncio.Event(), []

        @at.app.task
        async def waits(of: str) -> None:
            runs.append(of)
            await gate.wait()

        async with engine(at) as frozen, engine(at, silence_seconds=0.0, run=False) as other:
            job = await waits.defer_async(of="x")
            await at.until(job, "doing")
            frozen.freeze()
            assert not await other.upkeep.turn()
            other.run()
            await at.soon("SELECT status = 'doing' AND stalls = 1 FROM procrastinate_jobs WHERE id = $1", job)
            await at.soon("SELECT count(*) = 2 FROM procrastinate_events WHERE type = 'started'")
            gate.set()
            row = await at.until(job, "succeeded")
            await asyncio.gather(*frozen.jobs._at_work)
            assert (row["attempts"], len(runs)) == (2, 2)
            assert await at.errors(job) == [(1, "STALLED: its worker vanished (1 of 3 times)")]
            assert sum(one.of()._lost_leases._value.get() for one in (frozen, other)) == 1

    async def test_an_operator_s_reset_takes_it_from_its_worker(self, at: Desk) -> None:
        gates = [asyncio.Event(), asyncio.Event()]
        runs: list[int] = []

        @at.app.task
        async def waits() -> None:
            runs.append(len(runs))
            await gates[len(runs) - 1].wait()

        async with engine(at):
            job = await waits.defer_async()
            await at.until(job, "doing")
            await at.rows(
                "UPDATE procrastinate_jobs SET status = 'todo', started_at = NULL WHERE id = $1 AND status = 'doing'",
                job,
            )
            await at.soon("SELECT count(*) = 2 FROM procrastinate_events WHERE type = 'started'")
            gates[0].set()
            # The first run has ended, and nothing says that the job has.
            await asyncio.sleep(0.3)
            assert (await at.job(job))["status"] == "doing"
            gates[1].set()
            assert (await at.until(job, "succeeded"))["attempts"] == 1

    async def test_an_ending_that_is_written_twice_counts_once(self, at: Desk) -> None:
        @at.app.task
        async def never_run() -> None:
            raise AssertionError

        job = await never_run.defer_async()
        async with engine(at, run=False) as one:
            worker = await one.store.register()
            (claimed,) = await one.store.claim(None, worker, 5)
            for _ in range(2):
                assert await one.store.settle(worker, [(claimed, Ending("failed", error="E"))]) == {job}
            assert await one.store.settle(worker, [(claimed, Ending("succeeded"))]) == set()
            assert await one.store.settle(worker + 1, [(claimed, Ending("todo"))]) == set()
        assert (await at.job(job))["attempts"] == 1
        assert await at.errors(job) == [(1, "E")]


class TestTheDead:
    async def test_their_jobs_are_run_again_and_the_third_time_given_up(self, at: Desk) -> None:
        @at.app.task
        async def waits() -> None:
            await asyncio.sleep(60)

        job = await waits.defer_async()
        for time_ in (1, 2, 3):
            async with engine(at, silence_seconds=0.0) as one:
                await at.until(job, "doing")
                await one.vanish()
                await one.upkeep.turn()
            row = await at.job(job)
            assert (row["status"], row["stalls"]) == ("failed" if time_ == 3 else "todo", time_)
        assert [error for _, error in await at.errors(job)] == [
            f"STALLED: its worker vanished ({number} of 3 times)" for number in (1, 2, 3)
        ]

    async def test_a_task_gets_no_more_attempts_than_it_is_granted(self, at: Desk) -> None:
        @at.app.task(retry=1)
        async def waits() -> None:
            await asyncio.sleep(60)

        job = await waits.defer_async()
        for _ in range(2):
            async with engine(at, silence_seconds=0.0) as one:
                await at.until(job, "doing")
                await one.vanish()
                await one.upkeep.turn()
        assert (await at.job(job))["status"] == "failed"

    async def test_a_living_worker_keeps_its_jobs_and_one_that_was_given_up_joins_again(self, at: Desk) -> None:
        gate = asyncio.Event()

        @at.app.task
        async def waits() -> None:
            await gate.wait()

        async with engine(at, silence_seconds=5.0) as one:
            job = await waits.defer_async()
            await at.until(job, "doing")
            await one.upkeep.turn()
            assert (await at.job(job))["status"] == "doing"
            first = one.membership.worker
            await at.rows("DELETE FROM procrastinate_workers")
            await one.upkeep.turn()
            await at.soon("SELECT count(*) = 1 FROM procrastinate_workers")
            gate.set()
            await at.until(job, "succeeded")
            assert one.membership.worker != first

    async def test_a_claim_whose_answer_is_lost_is_found(self, at: Desk) -> None:
        runs: list[int] = []

        @at.app.task
        async def notes() -> None:
            runs.append(1)

        job = await notes.defer_async()
        async with engine(at, run=False) as one:
            worker = one.membership.worker = one.membership.known_as = await one.store.register()
            await one.store.claim(None, worker, 5)
            one.jobs._unsure = True
            await one.jobs.claim()
            await at.until(job, "succeeded")
        assert runs == [1]


class TestTheEnd:
    async def test_what_runs_at_a_stop_has_its_grace(self, at: Desk) -> None:
        @at.app.task
        async def short() -> None:
            await asyncio.sleep(0.3)

        async with engine(at) as one:
            job = await short.defer_async()
            await at.until(job, "doing")
            await one.drain(10)
            assert (await at.job(job))["status"] == "succeeded"
            assert one.jobs.handed_back == 0
            assert await at.value("SELECT count(*) FROM procrastinate_workers") == 0

    async def test_and_goes_back_after_it_at_no_cost(self, at: Desk) -> None:
        @at.app.task
        async def long() -> None:
            await asyncio.sleep(60)

        async with engine(at) as one:
            job = await long.defer_async()
            await at.until(job, "doing")
            await one.drain(0.1)
            row = await at.job(job)
            assert (row["status"], row["attempts"], one.jobs.handed_back) == ("todo", 0, 1)
            assert await at.errors(job) == []


class TestProcrastinateSRules:
    async def test_locks_and_priorities_hold(self, at: Desk) -> None:
        order: list[str] = []
        running: set[str] = set()

        @at.app.task
        async def notes(name: str, of: str) -> None:
            assert of not in running
            running.add(of)
            await asyncio.sleep(0.02)
            running.discard(of)
            order.append(name)

        for number in range(4):
            await notes.configure(lock="l").defer_async(name=f"l{number}", of="l")
        await notes.configure(priority=5).defer_async(name="urgent", of="u")
        async with engine(at, slots=4):
            await at.soon("SELECT count(*) = 5 FROM procrastinate_jobs WHERE status = 'succeeded'")
        assert [name for name in order if name != "urgent"] == ["l0", "l1", "l2", "l3"]
        assert order.index("urgent") <= 1

    async def test_only_the_queues_that_are_asked_for_are_worked(self, at: Desk) -> None:
        @at.app.task(queue="other")
        async def other() -> None: ...

        @at.app.task(queue="mine")
        async def mine() -> None: ...

        left = await other.defer_async()
        async with engine(at, queues=["mine"]):
            await at.until(await mine.defer_async(), "succeeded")
        assert (await at.job(left))["status"] == "todo"

    async def test_two_workers_share_and_run_each_job_once(self, at: Desk) -> None:
        seen: list[int] = []

        @at.app.task
        async def notes(number: int) -> None:
            seen.append(number)
            await asyncio.sleep(0)

        given: list[dict[str, Any]] = [{"number": number} for number in range(500)]
        await notes.batch_defer_async(*given)
        async with engine(at), engine(at):
            await at.soon("SELECT count(*) = 500 FROM procrastinate_jobs WHERE status = 'succeeded'")
        assert sorted(seen) == list(range(500))
