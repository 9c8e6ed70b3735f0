"""Redis is away for a while, clocks jump: nothing is lost, doubled, or paid for with an attempt."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import redis

from chaos.events import QUEUE
from chaos.rest import asked
from worker_suite import wait_for

if TYPE_CHECKING:
    from chaos.site import Site
    from embedded_stack import RedisServer

pytestmark = pytest.mark.timeout(120)
ONCE = {"first": 1, "second": 1}
BATCH = 20
UNDER_WAY = "SELECT count(*) FROM domain_event_under_way"


def test_while_redis_is_away_events_wait_in_postgresql_and_are_seen_to(
    site_on_its_own_redis: Site, own_redis: RedisServer
) -> None:
    site = site_on_its_own_redis
    worker = site.worker(OUTBOX_BATCH_SIZE=str(BATCH)).ready()
    at_work = site.commit([f"early-{number}" for number in range(10)], events=2, seconds=1.0)
    wait_for(lambda: {entry.event for entry in site.history if entry.what == "begun"}, 20, "the first handlers")
    site.pen.tell("gone", note="redis")
    own_redis.kill()
    late = site.commit([f"late-{number}" for number in range(100)], events=3)
    # What is in memory: a batch that could not be published, one that was claimed meanwhile, and what followed those
    # at work.
    wait_for(lambda: worker.metric("intelliflow_outbox_oldest_pending_age_seconds") > 3, 30, "a lag that is seen")
    assert worker.metric("intelliflow_outbox_pending_events") >= len(late) - 2 * BATCH
    assert worker.metric("intelliflow_outbox_relay_errors_total") > 0
    assert asked(site.database_url, UNDER_WAY)[0][0] <= 2 * BATCH + len(at_work)
    own_redis.start()
    site.pen.tell("back", note="redis")
    verdict = site.verdict()
    assert verdict.wrong == []
    assert verdict.counted["events handled"] == len(at_work + late)
    assert all(site.effects(event) == ONCE for event in at_work + late)
    with redis.Redis.from_url(own_redis.url) as server:
        assert {server.hget(f"{QUEUE}:{event}", "atm") for event in at_work + late} == {b"1"}


def test_clocks_that_jump_lose_nothing_and_reorder_nothing(site: Site) -> None:
    """An hour ahead in one worker and an hour back in the other, in the midst of work and retries."""
    workers = [site.worker(CHAOS_CLOCK_HOURS=hours, CHAOS_MISHAPS="0.1").ready() for hours in ("1", "-1")]
    aggregates = [f"a{number}" for number in range(20)]
    before = site.commit(aggregates, events=10, seconds=0.01)
    wait_for(lambda: sum(entry.what == "done" for entry in site.history) > 100, 30, "half of the work")
    for worker in workers:
        worker.popen.send_signal(signal.SIGUSR1)
    after = site.commit(aggregates, events=10, seconds=0.01)
    verdict = site.verdict()
    assert verdict.wrong == []
    assert verdict.counted["events handled"] + verdict.counted["events dead"] == len(before + after)
    assert verdict.counted["runs that failed"]
    assert not verdict.counted["doubled events"]
