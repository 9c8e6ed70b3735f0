"""The judge is judged: a history in which all is well, and then each way in which it may not be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chaos.history import Entry
from chaos.verdict import Left, Remains, judge

ONE, TWO = 101, 102


class Tale:
    """A history in the making; every entry is a second later than the last."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.runs = 0

    def tell(self, what: str, pid: int = 1, **more: Any) -> None:
        self.entries.append(Entry(what, float(len(self.entries)), pid, **more))

    def commit(self, event: str, version: int) -> None:
        for what in ("written", "committing", "committed"):
            self.tell(what, event=event, aggregate="a", version=version)

    def begin(self, event: str, version: int, handler: str, pid: int = ONE) -> dict[str, Any]:
        self.runs += 1
        who: dict[str, Any] = {"event": event, "aggregate": "a", "handler": handler, "run": str(self.runs), "pid": pid}
        self.tell("begun", version=version, **who)
        return who

    def run(self, event: str, version: int, handler: str, pid: int = ONE, how: str = "done") -> None:
        who = self.begin(event, version, handler, pid)
        if how == "done" and handler != "ledger":
            self.tell("effect", **who)
        self.tell(how, **who)

    def handle(self, event: str, version: int, pid: int = ONE) -> None:
        for handler in ("first", "second", "ledger"):
            self.run(event, version, handler, pid)


def left(event: str, position: int, **more: Any) -> Left:
    return replace(Left(event, "a", position, "processed", pending=False, turn="", blocks=False, last_error=""), **more)


def dead(event: str, position: int, error: str = "HANDLER_FAILED: x", *, blocks: bool = False) -> Left:
    return left(event, position, status="dead_letter", turn="dead", blocks=blocks, last_error=error)


def pending(event: str, position: int) -> Left:
    return left(event, position, status="pending", pending=True)


def remains(*events: Left, **more: Any) -> Remains:
    lines = [(one.event, "a", one.position) for one in events if one.status == "processed"]
    return replace(Remains(events, lines, [], 0, frozenset(), []), **more)


def handled() -> Tale:
    tale = Tale()
    for version, event in enumerate(("e1", "e2"), 1):
        tale.commit(event, version)
        tale.handle(event, version)
    return tale


BOTH = (left("e1", 1), left("e2", 2))


def wrong(tale: Tale, what_is_left: Remains) -> list[str]:
    """Return the numbers of the invariants that were found broken."""
    return sorted({sentence[0] for sentence in judge(tale.entries, what_is_left).wrong})


def test_all_is_well() -> None:
    assert wrong(handled(), remains(*BOTH)) == []


def test_an_event_that_is_gone_is_lost() -> None:
    assert "1" in wrong(handled(), remains(BOTH[0]))


@pytest.mark.parametrize("end", ["rolled back", "in doubt"])
def test_what_was_not_committed_may_not_appear(end: str) -> None:
    tale = handled()
    tale.tell("written", event="ghost", aggregate="b", version=1)
    tale.tell("committing", event="ghost", aggregate="b")
    tale.tell(end, event="ghost", aggregate="b")
    assert wrong(tale, remains(*BOTH)) == []
    tale.run("ghost", 1, "first")
    assert "2" in wrong(tale, remains(*BOTH))


def test_nothing_runs_before_its_commit() -> None:
    tale = Tale()
    tale.tell("written", event="e1", aggregate="a", version=1)
    tale.handle("e1", 1)
    tale.tell("committing", event="e1")
    tale.tell("committed", event="e1")
    assert wrong(tale, remains(BOTH[0])) == ["2"]


@pytest.mark.parametrize("missing", ["first", "second"])
def test_a_handled_event_lacks_no_effect(missing: str) -> None:
    tale = Tale()
    tale.commit("e1", 1)
    for handler in {"first", "second", "ledger"} - {missing}:
        tale.run("e1", 1, handler)
    assert wrong(tale, remains(BOTH[0])) == ["3"]


@pytest.mark.parametrize("lines", [[], [("e1", "a", 1), ("e1", "a", 1)]])
def test_the_ledger_has_one_line_for_each_handled_event(lines: list[tuple[str, str, int]]) -> None:
    tale = Tale()
    tale.commit("e1", 1)
    tale.handle("e1", 1)
    assert "3" in wrong(tale, remains(BOTH[0], ledger=lines))


@pytest.mark.parametrize(
    ("trouble", "excused"),
    [
        ([], False),
        ([("killed", ONE, "")], True),
        ([("killed", 999, "")], False),
        ([("gone", 1, "redis"), ("back", 1, "redis")], True),
        ([("frozen", ONE, ""), ("thawed", ONE, "")], True),
        ([("deposed", 1, "")], False),
    ],
)
def test_an_effect_happens_again_only_for_a_reason(trouble: list[tuple[str, int, str]], *, excused: bool) -> None:
    tale = Tale()
    tale.commit("e1", 1)
    tale.run("e1", 1, "first")
    for what, pid, note in trouble:
        tale.tell(what, pid, note=note)
    tale.handle("e1", 1, TWO)
    assert wrong(tale, remains(BOTH[0])) == ([] if excused else ["3"])


def test_one_kill_excuses_no_more_than_what_was_in_flight() -> None:
    tale, events = Tale(), [f"e{number}" for number in range(60)]
    for version, event in enumerate(events):
        tale.commit(event, version)
        tale.run(event, version, "first")
    tale.tell("killed", ONE)
    for version, event in enumerate(events):
        tale.handle(event, version, TWO)
    assert "3" in wrong(tale, remains(*(left(event, version) for version, event in enumerate(events))))


def test_order_is_that_of_the_versions() -> None:
    tale = Tale()
    for version, event in enumerate(("e1", "e2"), 1):
        tale.commit(event, version)
    tale.handle("e2", 2)
    tale.handle("e1", 1)
    assert wrong(tale, remains(*BOTH)) == ["4"]
    tale.tell("killed", ONE)
    assert wrong(tale, remains(*BOTH)) == ["4"]
    assert wrong(handled(), remains(*BOTH, ledger=[("e2", "a", 2), ("e1", "a", 1)])) == ["4"]


@pytest.mark.parametrize("frozen", [False, True])
def test_two_events_of_an_aggregate_are_not_at_work_at_once(*, frozen: bool) -> None:
    tale = Tale()
    for version, event in enumerate(("e1", "e2"), 1):
        tale.commit(event, version)
    tale.run("e1", 1, "second")
    tale.run("e1", 1, "ledger")
    zombie = tale.begin("e1", 1, "first")
    if frozen:
        tale.tell("frozen", ONE)
        tale.run("e1", 1, "first", TWO)
    tale.handle("e2", 2, TWO)
    if frozen:
        tale.tell("thawed", ONE)
    tale.tell("effect", **zombie)
    tale.tell("done", **zombie)
    assert wrong(tale, remains(*BOTH)) == ([] if frozen else ["5"])


def test_a_zombie_that_goes_on_is_one_too_many() -> None:
    tale = Tale()
    tale.commit("e1", 1)
    zombie = tale.begin("e1", 1, "first")
    tale.tell("frozen", ONE)
    tale.handle("e1", 1, TWO)
    tale.tell("thawed", ONE)
    for version in range(2, 6):
        tale.tell("written", event=f"e{version}", aggregate="a", version=version)
    tale.tell("written", event="e9", aggregate="a", version=9)
    tale.tell("aborted", **zombie)
    assert wrong(tale, remains(BOTH[0])) == ["5"]


def test_what_is_pending_waits_for_a_dead_letter_that_blocks() -> None:
    tale = handled()
    for _ in range(3):
        tale.run("e1", 1, "second", how="failed")
    tale.commit("e3", 3)
    what_blocks = dead("e2", 2, blocks=True)
    evidence = remains(left("e1", 1), what_blocks, pending("e3", 3))
    assert "6" not in wrong(tale, evidence)
    assert "6" in wrong(tale, remains(*BOTH, pending("e3", 3)))
    assert "6" in wrong(tale, remains(left("e1", 1), replace(what_blocks, blocks=False), pending("e3", 3)))
    assert "6" in wrong(tale, remains(dead("e1", 1, blocks=True), left("e2", 2)))
    assert "6" in wrong(handled(), remains(*BOTH, unfinished_jobs=1))


@pytest.mark.parametrize(
    ("change", "sound"),
    [
        ((0, None, "x", 1, 2, False), True),
        ((0, "x", "y", 2, 3, True), True),
        ((0, "x", None, 2, 2, False), True),
        ((0, "x", "y", 2, 3, False), False),
        ((0, "x", "y", 2, 2, True), False),
    ],
)
def test_a_partition_changes_hands_when_it_is_free_and_with_a_new_token(change: Any, *, sound: bool) -> None:
    assert wrong(handled(), remains(*BOTH, ownership=[change])) == ([] if sound else ["7"])


@pytest.mark.parametrize(
    ("error", "failures", "kills", "just"),
    [
        ("HANDLER_FAILED: x", 3, 0, True),
        ("HANDLER_FAILED: x", 2, 0, False),
        ("STALLED: x", 0, 3, True),
        ("STALLED: x", 0, 2, False),
        ("TIME_LIMIT: x", 3, 0, False),
        ("DEFERRED_TOO_LONG: x", 3, 0, False),
    ],
)
def test_a_dead_letter_died_of_something(error: str, failures: int, kills: int, *, just: bool) -> None:
    tale = Tale()
    tale.commit("e1", 1)
    for _ in range(failures):
        tale.run("e1", 1, "first", how="failed")
    for pid in range(kills):
        tale.begin("e1", 1, "first", pid)
        tale.tell("killed", pid)
    assert wrong(tale, remains(dead("e1", 1, error))) == ([] if just else ["8"])


def test_failures_of_one_attempt_count_once() -> None:
    tale = Tale()
    tale.commit("e1", 1)
    for _ in range(2):
        runs = [tale.begin("e1", 1, handler) for handler in ("first", "second")]
        for run in runs:
            tale.tell("failed", **run)
    assert wrong(tale, remains(dead("e1", 1))) == ["8"]


@pytest.mark.parametrize(
    "odd",
    [
        left("e2", 2, turn="under way"),
        left("e2", 2, status="dead_letter", last_error="HANDLER_FAILED: x"),
        left("e2", 2, pending=True),
        left("e2", 2, turn="dead"),
    ],
)
def test_an_event_ends_in_one_way(odd: Left) -> None:
    assert "9" in wrong(handled(), remains(left("e1", 1), odd))


def test_redis_and_postgresql_agree_on_who_is_dead_and_no_process_ends_by_itself() -> None:
    assert wrong(handled(), remains(*BOTH, failed_jobs=frozenset({"e1"}))) == ["9"]
    assert wrong(handled(), remains(*BOTH, surprises=["worker 1 ended by itself"])) == ["9"]
