"""A worker is killed, or freezes, at each place between a commit and its effects; another one goes on.

What the verdict excuses is counted here: the table says how often each effect of the first event happens.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from chaos.rest import asked
from events_worker.frozen import STALE_SECONDS
from events_worker.store.upkeep import SWEEP_ROWS
from worker_suite import wait_for

if TYPE_CHECKING:
    from chaos.site import Site
    from worker_suite import Process

pytestmark = pytest.mark.timeout(120)
ONCE, TWICE = {"first": 1, "second": 1}, {"first": 2, "second": 2}
FIRST_TWICE = {"first": 2, "second": 1}
OLD = """
INSERT INTO domain_event_outbox
       (id, event_type, aggregate_type, aggregate_id, tenant_id, status, processed_at, receipted)
SELECT gen_random_uuid(), 'chaos.lenient', 'chaos', 'a' || n, 't-1', 'processed', now() - interval '8 days', true
  FROM generate_series(1, %s) AS n
"""


@pytest.mark.parametrize(
    ("point", "effects"),
    [
        ("claimed", ONCE),
        ("half published", ONCE),
        ("first of two done", FIRST_TWICE),
        ("receipt noted", ONCE),
        ("effects done", TWICE),
        ("ended", ONCE),
        ("finished", ONCE),
    ],
)
def test_another_worker_goes_on_where_one_was_killed(site: Site, point: str, effects: dict[str, int]) -> None:
    # The second handler is slow in the worker that dies between two, and fails in the one that notes a receipt.
    doom = {"first of two done": {"second": 60}, "receipt noted": {"second": -1}}.get(point, {})
    doomed = site.worker(CHAOS_CRASH_AT=point).ready()
    # Two aggregates where half of a batch is to be published; else one, so that one event is in flight.
    ids = site.commit(["a", "b"] if point == "half published" else ["a"], events=3, doomed=doom)
    site.wait_for_death(doomed)
    site.worker()
    verdict = site.verdict()
    assert verdict.wrong == []
    assert verdict.counted["events handled"] == len(ids)
    assert [site.effects(event) for event in ids] == [effects, *[ONCE] * (len(ids) - 1)]


def test_a_batch_that_was_published_when_the_relay_died_is_not_published_again(site: Site) -> None:
    doomed = site.worker(CHAOS_CRASH_AT="published").ready()
    ids = site.commit([f"a{number}" for number in range(20)], events=2)
    site.wait_for_death(doomed)
    site.worker()
    verdict = site.verdict()
    assert verdict.wrong == []
    assert verdict.counted["events handled"] == len(ids)


def test_a_dead_letter_whose_worker_died_before_redis_knew_is_not_tried_again(site: Site) -> None:
    doomed = site.worker(CHAOS_CRASH_AT="buried").ready()
    poisoned, *later = site.commit(["a"], events=3, doomed={"second": -1})
    site.wait_for_death(doomed)
    tried = sum(entry.event == poisoned and entry.what == "begun" for entry in site.history)
    site.worker()
    verdict = site.verdict()
    assert verdict.wrong == []
    assert (verdict.counted["events dead"], verdict.counted["events handled"]) == (1, 2)
    assert sum(entry.event == poisoned and entry.what == "begun" for entry in site.history) == tried
    assert all(site.effects(event) == ONCE for event in later)


def test_an_archive_that_was_killed_moves_each_event_once(site: Site) -> None:
    total = SWEEP_ROWS * 2 + 100
    with psycopg.connect(site.database_url) as connection:
        connection.execute(OLD, (total,))
    doomed = site.worker(CHAOS_CRASH_AT="archiving")
    wait_for(lambda: doomed.popen.poll() is not None, 30, "the crash")
    site.worker()
    wait_for(lambda: asked(site.database_url, "SELECT count(*) FROM domain_event_outbox") == [(0,)], 20)
    archived = "SELECT count(*), count(DISTINCT id) FROM domain_event_outbox_archive"
    assert asked(site.database_url, archived) == [(total, total)]


@pytest.mark.parametrize(
    ("slow", "effects"),
    [
        # Only the one that was interrupted is missing; the other one's receipt was not written.
        (["first"], {"first": 1, "second": 2}),
        # Its transaction is open, and others wait until the server has ended it.
        (["ledger"], TWICE),
    ],
)
def test_a_worker_that_froze_longer_than_its_locks_live_is_interrupted_when_it_wakes(
    site: Site, slow: list[str], effects: dict[str, int]
) -> None:
    zombie = site.worker(CHAOS_CRASH_AT="renewing locks").ready()
    pid = zombie.popen.pid
    ids = site.commit(["a"], events=3, doomed=dict.fromkeys(slow, 60))
    wait_for(lambda: is_stopped(pid), 20, "the freeze")
    site.pen.tell("frozen", pid=pid)
    site.worker()
    wait_for(lambda: has_a_line(site, ids[-1]), 40, "the other's work")
    site.pen.tell("thawed", pid=pid)
    zombie.popen.send_signal(signal.SIGCONT)
    wait_for(lambda: how_it_ended(site, slow[0], pid) in ("aborted", "put off"), 10, "the interruption")
    verdict = site.verdict()
    assert verdict.wrong == []
    assert verdict.counted["events handled"] == 3
    assert [site.effects(event) for event in ids] == [effects, ONCE, ONCE]


def test_a_worker_that_froze_with_an_old_answer_does_not_act_on_it(site: Site) -> None:
    """It was told that it is the event's turn, before others handled it and the next ones."""
    zombie, ids = frozen_at(site, "told whose turn it is")
    wait_for(lambda: has_a_line(site, ids[-1]), 40, "the other's work")
    pid = thawed(site, zombie)
    zombie.ready()
    assert site.verdict().wrong == []
    assert not [entry for entry in site.history if entry.pid == pid and entry.what == "begun"]
    assert [site.effects(event) for event in ids] == [ONCE] * 3


@pytest.mark.parametrize(
    ("point", "doom", "effects"),
    [("work done", {}, TWICE), ("last attempt failed", {"second": -1}, {"first": 1, "second": 1})],
)
def test_a_zombie_neither_ends_nor_buries_what_another_one_is_at(
    site: Site, point: str, doom: dict[str, int], effects: dict[str, int]
) -> None:
    """Else the next event would begin beside it. What the zombie did before it froze cannot be undone."""
    slow = "second" if doom else "first"
    zombie, ids = frozen_at(site, point, lasts={slow: 8}, doomed=doom)
    wait_for(lambda: len(begun(site, ids[0])) == 2, 40, "the other's beginning")
    pid = thawed(site, zombie)
    wait_for(lambda: has_a_line(site, ids[0]) and site.effects(ids[0]) == effects, 40, "the other's work")
    nexts = [entry for entry in site.history if entry.event == ids[1] and entry.what == "begun"]
    ends = [entry for entry in site.history if entry.event == ids[0] and entry.what == "done" and entry.pid != pid]
    assert all(entry.at > max(end.at for end in ends) for entry in nexts)
    verdict = site.verdict(within=60)
    assert verdict.wrong == []
    assert verdict.counted["events handled"] == 3
    assert verdict.counted["overlaps in the wake of: frozen"] == 0


def frozen_at(site: Site, point: str, **payload: Any) -> tuple[Process, list[str]]:
    """Have a worker freeze in the first of three events, and another one take over."""
    zombie = site.worker(CHAOS_CRASH_AT=point).ready()
    pid = zombie.popen.pid
    ids = site.commit(["a"], **payload) + site.commit(["a"], events=2)
    wait_for(lambda: is_stopped(pid), 30, "the freeze")
    site.pen.tell("frozen", pid=pid)
    site.worker()
    return zombie, ids


def thawed(site: Site, zombie: Process) -> int:
    """Let it go on, when what it knows is old; return its process id."""
    wait_for(lambda: time.monotonic() > at_of(site, "frozen") + STALE_SECONDS, what="becoming stale")
    site.pen.tell("thawed", pid=zombie.popen.pid)
    zombie.popen.send_signal(signal.SIGCONT)
    return zombie.popen.pid


def begun(site: Site, event: str) -> set[int]:
    """Return the processes that have begun it."""
    return {entry.pid for entry in site.history if entry.event == event and entry.what == "begun"}


def test_a_start_outlives_a_postgresql_that_goes_away_in_its_midst(site: Site) -> None:
    worker = site.worker(CHAOS_CRASH_AT="starting").ready()
    assert worker.logged("start_waits_for_postgres")


def test_a_relay_that_froze_in_the_midst_of_renewing_its_leases_is_replaced_and_does_no_harm(site: Site) -> None:
    frozen = site.worker(CHAOS_CRASH_AT="renewing leases")
    pid = frozen.popen.pid
    wait_for(lambda: is_stopped(pid), 30, "the freeze")
    site.pen.tell("frozen", pid=pid)
    site.worker()
    ids = site.commit([f"a{number}" for number in range(20)], events=3)
    wait_for(lambda: all(site.effects(event) == ONCE for event in ids), 30, "the other's work")
    site.pen.tell("thawed", pid=pid)
    frozen.popen.send_signal(signal.SIGCONT)
    frozen.ready(30)
    more = site.commit([f"a{number}" for number in range(20)], events=3)
    verdict = site.verdict()
    assert verdict.wrong == []
    assert verdict.counted["events handled"] == len(ids + more)
    assert all(site.effects(event) == ONCE for event in ids + more)


def at_of(site: Site, what: str) -> float:
    """Return when it happened first."""
    return next(entry.at for entry in site.history if entry.what == what)


def has_a_line(site: Site, event: str) -> bool:
    """Tell whether the last handler's transaction for an event has been committed."""
    return asked(site.database_url, f"SELECT count(*) FROM ledger WHERE event = '{event}'") == [(1,)]


def how_it_ended(site: Site, handler: str, pid: int) -> str:
    """Return what became of a handler's last run in a process."""
    told = [entry.what for entry in site.history if entry.handler == handler and entry.pid == pid]
    return told[-1]


def is_stopped(pid: int) -> bool:
    """Tell whether a process is frozen."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123
        return stat.read().rpartition(") ")[2].startswith("T")
