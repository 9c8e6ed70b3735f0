"""The nine invariants, judged from the history and from what is left at the end. Nothing here asks a server.

What may be excused is said where it is excused, and counted: an effect that happened twice because a process or a
server went away between the effect and its receipt; two events of an aggregate at work at once because a process had
been frozen for longer than its locks live, or Redis forgot what it had answered.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from chaos.events import HANDLERS
from chaos.runs import FORGETFUL_SECONDS, Run, Trouble, runs_of, troubles_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from chaos.history import Entry

ATTEMPTS = 3
JOBS_IN_FLIGHT = 50
# A job that was found without a lock is tried again twice.
LOSSES_THAT_STALL = 3
# Five renewals of its locks fit into a lock's ten seconds, and the first tells a zombie that it is one.
ZOMBIE_SECONDS = 5.0
# A dispatcher tries for 20 s to write a receipt.
PATIENCE_SECONDS = 25.0
# What takes an answer away between an effect and its receipt...
RECEIPT_TROUBLES = ("killed", "frozen", "postgres", "redis", "cut off", "forgot")
# ...and what takes a lock away from a living process.
LOCK_TROUBLES = ("frozen", "redis", "forgot")


@dataclass(frozen=True, slots=True)
class Left:
    """An event as PostgreSQL has it at the end; `turn` is "", "under way" or "dead"."""

    event: str
    aggregate: str
    position: int
    status: str
    pending: bool
    turn: str
    blocks: bool
    last_error: str


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left at the end. `ledger` holds event, aggregate and version of each line, in their order.

    `ownership` holds partition, old and new owner, old and new token, and whether the old lease had expired.
    """

    events: Sequence[Left]
    ledger: Sequence[tuple[str, str, int]]
    ownership: Sequence[tuple[int, str | None, str | None, int, int, bool]]
    unfinished_jobs: int
    failed_jobs: frozenset[str]
    surprises: Sequence[str]


@dataclass
class Verdict:
    """What is wrong, by invariant, and what was counted."""

    wrong: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def say(self, invariant: int, sentence: str) -> None:
        """Find something wrong."""
        self.wrong.append(f"{invariant}: {sentence}")


def judge(history: Sequence[Entry], remains: Remains) -> Verdict:
    """Judge a run that has come to rest: faults are over, writers have stopped, nothing moves any more."""
    case = Case(history, remains)
    nothing_is_lost(case)
    nothing_comes_from_nowhere(case)
    every_effect_happened(case)
    effects_start_in_order(case)
    one_event_of_an_aggregate_at_a_time(case)
    zombies_are_interrupted(case)
    a_failure_stops_its_aggregate_only(case)
    partitions_have_one_owner(case)
    outages_cost_nothing(case)
    every_event_ends_once(case)
    count(case)
    return case.verdict


class Case:
    """The evidence, arranged."""

    def __init__(self, history: Sequence[Entry], remains: Remains) -> None:
        self.history = history
        self.remains = remains
        self.verdict = Verdict()
        self.runs = runs_of(history)
        self.troubles = troubles_of(history)
        self.left = {event.event: event for event in remains.events}
        self.told: dict[str, set[str]] = defaultdict(set)
        self.version: dict[str, int] = {}
        self.at = [entry.at for entry in history]
        # What happened again, by what excuses it.
        self.doubled: dict[Trouble, set[str]] = defaultdict(set)
        self.processes = 3
        for entry in history:
            if entry.what in ("written", "committed", "rolled back", "in doubt"):
                self.told[entry.event].add(entry.what)
            if entry.what == "written":
                self.version[entry.event] = entry.version
        self.runs_by_event: dict[str, list[Run]] = defaultdict(list)
        self.runs_by_aggregate: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            self.runs_by_event[run.event].append(run)
            self.runs_by_aggregate[run.aggregate].append(run)

    def committed(self) -> Iterator[str]:
        """Return the events whose commit was answered, and those in doubt that PostgreSQL has."""
        for event, told in self.told.items():
            if "committed" in told or ("in doubt" in told and event in self.left):
                yield event

    def during(self, kinds: Iterable[str], since: float, until: float, *, event: str, pids: set[int]) -> list[Trouble]:
        """Return troubles of those kinds that touch a span of time and concern that event or those processes."""
        wanted = set(kinds)
        return [
            trouble
            for trouble in self.troubles
            if trouble.kind in wanted
            and trouble.since <= until
            and trouble.until >= since - (FORGETFUL_SECONDS if trouble.kind in ("redis", "postgres") else 0)
            and (not trouble.pid or trouble.pid in pids)
            and (not trouble.event or trouble.event == event)
        ]

    def frozen_in(self, run: Run) -> list[Trouble]:
        """Return when a run's process was frozen in the midst of it."""
        end = self.at[min(run.ended, len(self.at) - 1)]
        freezes = (trouble for trouble in self.troubles if trouble.kind == "frozen" and trouble.pid == run.pid)
        return [freeze for freeze in freezes if run.begun_at <= freeze.until and freeze.since <= end]

    def lost_its_lock(self, event: str) -> list[Trouble]:
        """Return what may have let two processes believe, at a time, that the event was theirs."""
        runs = self.runs_by_event[event]
        if not runs:
            return []
        until = max(self.at[min(run.ended, len(self.at) - 1)] for run in runs)
        return self.during(LOCK_TROUBLES, runs[0].begun_at, until, event=event, pids={run.pid for run in runs})


def nothing_is_lost(case: Case) -> None:
    """1. Every committed event is in PostgreSQL at the end."""
    for event in case.committed():
        if event not in case.left:
            case.verdict.say(1, f"{event} was committed and is gone")


def nothing_comes_from_nowhere(case: Case) -> None:
    """2. Whatever ran or was written down had been committed."""
    committed = set(case.committed())
    seen = {run.event for run in case.runs} | {line[0] for line in case.remains.ledger} | set(case.left)
    for event in seen - committed:
        case.verdict.say(2, f"{event} appeared, and its writers say: {sorted(case.told[event])}")
    commits = {entry.event: place for place, entry in enumerate(case.history) if entry.what == "committing"}
    for run in case.runs:
        if run.begun < commits.get(run.event, 0):
            case.verdict.say(2, f"{run.event} ran before its commit")


def every_effect_happened(case: Case) -> None:
    """3. Of a handled event each effect happened, and only once unless its receipt was in trouble."""
    lines = Counter(line[0] for line in case.remains.ledger)
    for event, left in case.left.items():
        if lines[event] > 1 or (left.status == "processed" and not left.pending and not left.turn and not lines[event]):
            case.verdict.say(3, f"{event} ({left.status}) has {lines[event]} lines in the ledger")
        for handler in HANDLERS[:2]:
            runs = [run for run in case.runs_by_event[event] if run.handler == handler]
            effects = sorted((place, run.begun, run.pid) for run in runs for place in run.effects)
            if not effects and left.status == "processed" and not left.pending and not left.turn:
                case.verdict.say(3, f"{event} is handled, and {handler} had no effect")
            for (effect, begun, pid), (again, _, other) in pairwise(effects):
                judge_a_double(case, event, handler, (begun, effect, again), {pid, other})
    bound_the_doubles(case)


def judge_a_double(case: Case, event: str, handler: str, places: tuple[int, int, int], pids: set[int]) -> None:
    """Excuse an effect that happened again if something stood between it and its receipt."""
    begun, effect, again = (case.at[place] for place in places)
    # Where its run begins: a zombie has its effect when it wakes. A receipt is given up for lost after a while.
    of_servers = case.during(RECEIPT_TROUBLES, begun, min(again, effect + PATIENCE_SECONDS), event=event, pids=set())
    of_processes = case.during(("killed", "frozen"), begun, again, event=event, pids=pids)
    if excuses := of_servers + of_processes:
        case.doubled[excuses[-1]].add(event)
    else:
        case.verdict.say(3, f"{event}: {handler} had its effect again after {again - effect:.1f} s for no reason")


def bound_the_doubles(case: Case) -> None:
    """Let no trouble excuse more than the jobs that were in flight."""
    for trouble, events in case.doubled.items():
        case.verdict.counted["doubled events"] += len(events)
        case.verdict.counted[f"doubled events: {trouble.kind}"] += len(events)
        if len(events) > JOBS_IN_FLIGHT * (1 if trouble.pid or trouble.event else case.processes):
            case.verdict.say(3, f"{len(events)} events had an effect again because of one trouble: {trouble}")


def effects_start_in_order(case: Case) -> None:
    """4. In an aggregate, no event starts before an earlier one has, nor again after a later one has."""
    for aggregate, runs in case.runs_by_aggregate.items():
        highest = runs[0]
        for run in runs:
            if run.version >= highest.version:
                highest = run
            elif excuses := case.lost_its_lock(run.event):
                case.verdict.counted[f"late starts: {excuses[-1].kind}"] += 1
            else:
                case.verdict.say(4, f"{aggregate}: {run.version} started after {highest.version} ({run.event})")
        check_the_ledger_s_order(case, aggregate)


def check_the_ledger_s_order(case: Case, aggregate: str) -> None:
    """Say where lines, which a commit with the receipt made, are not in order: nothing excuses that."""
    versions = [version for _, owner, version in case.remains.ledger if owner == aggregate]
    for before, after in pairwise(versions):
        if after <= before:
            case.verdict.say(4, f"{aggregate}: the ledger has {after} after {before}")


def one_event_of_an_aggregate_at_a_time(case: Case) -> None:
    """5. No two events of an aggregate are at work at once, but for a zombie, which is interrupted when it wakes."""
    for aggregate, runs in case.runs_by_aggregate.items():
        at_work: list[Run] = []
        for run in runs:
            at_work = [other for other in at_work if other.ended > run.begun]
            for other in at_work:
                if other.event != run.event:
                    judge_an_overlap(case, aggregate, other, run)
            at_work.append(run)


def judge_an_overlap(case: Case, aggregate: str, earlier: Run, later: Run) -> None:
    """Excuse two events at work at once if one had lost its lock without anybody's fault."""
    counted = case.verdict.counted
    if case.frozen_in(earlier) or case.frozen_in(later):
        counted["overlaps with a frozen process"] += 1
    elif excuses := case.lost_its_lock(earlier.event) or case.lost_its_lock(later.event):
        counted[f"overlaps in the wake of: {excuses[-1].kind}"] += 1
    else:
        pair = f"{earlier.version} in {earlier.pid} and {later.version} in {later.pid}"
        case.verdict.say(5, f"{aggregate}: {pair} were at work at once ({earlier.event}, {later.event})")


def zombies_are_interrupted(case: Case) -> None:
    """5, too: a run that lost its lock while its process was frozen ends soon after that wakes."""
    for run in case.runs:
        for freeze in case.frozen_in(run):
            rivals = (other for other in case.runs_by_event[run.event] if other.pid != run.pid)
            if not any(run.begun_at < rival.begun_at < freeze.until for rival in rivals):
                continue
            case.verdict.counted["zombies"] += 1
            case.verdict.counted["zombies' effects"] += sum(case.at[place] > freeze.until for place in run.effects)
            end = case.at[run.ended] if run.ended < len(case.at) else case.at[-1]
            if end > freeze.until + ZOMBIE_SECONDS:
                case.verdict.say(5, f"{run.event} was at work in {run.pid} for {end - freeze.until:.1f} s as a zombie")


def a_failure_stops_its_aggregate_only(case: Case) -> None:
    """6. What is pending at the end waits for a dead letter that blocks; nothing else is left to do."""
    blocked = {left.aggregate: left.position for left in case.left.values() if left.turn == "dead" and left.blocks}
    for left in case.left.values():
        if left.pending and left.position <= blocked.get(left.aggregate, left.position):
            case.verdict.say(6, f"{left.event} is pending, and nothing of {left.aggregate} blocks it")
        if not left.pending and left.position > blocked.get(left.aggregate, left.position):
            case.verdict.say(6, f"{left.event} passed a dead letter that blocks {left.aggregate}")
    if case.remains.unfinished_jobs:
        case.verdict.say(6, f"{case.remains.unfinished_jobs} jobs are left in the queue")


def partitions_have_one_owner(case: Case) -> None:
    """7. A partition changes hands when it was released or its lease was over, and each time with a new token."""
    for partition, old, new, old_token, new_token, expired in case.remains.ownership:
        if new and new != "an impostor" and (new_token <= old_token or (old is not None and not expired)):
            change = f"from {old} ({old_token}, {'expired' if expired else 'valid'}) to {new} ({new_token})"
            case.verdict.say(7, f"partition {partition} went {change}")


def outages_cost_nothing(case: Case) -> None:
    """8. Each dead letter died of its handlers, or of processes that ended three times while they ran it."""
    for left in case.left.values():
        if left.status != "dead_letter":
            continue
        code, runs = left.last_error.partition(":")[0], case.runs_by_event[left.event]
        if code == "HANDLER_FAILED" and failed_attempts(runs) >= ATTEMPTS:
            case.verdict.counted["dead: handlers"] += 1
        elif code == "STALLED" and len(losses(case, left.event)) >= LOSSES_THAT_STALL:
            case.verdict.counted["dead: stalled"] += 1
        else:
            ends = Counter(run.how for run in runs)
            case.verdict.say(8, f"{left.event} is dead of {left.last_error!r} after {dict(ends)}")


def failed_attempts(runs: Sequence[Run]) -> int:
    """Count the attempts in which a handler failed: runs of one attempt are at work together, those of two are not."""
    attempts, over = 0, -1
    for run in (run for run in runs if run.how == "failed"):
        attempts += run.begun > over
        over = max(over, run.ended)
    return attempts


def losses(case: Case, event: str) -> list[Trouble]:
    """Return what may have left the event's job without a lock."""
    runs = case.runs_by_event[event]
    kinds = ("killed", *LOCK_TROUBLES)
    return (
        case.during(kinds, runs[0].begun_at, case.at[-1], event=event, pids={run.pid for run in runs}) if runs else []
    )


def every_event_ends_once(case: Case) -> None:
    """9. Each event is handled, a dead letter or pending, and the queue does not contradict."""
    ends: Mapping[tuple[str, bool, str], str] = {
        ("processed", False, ""): "handled",
        ("dead_letter", False, "dead"): "dead",
        ("pending", True, ""): "pending",
    }
    for left in case.left.values():
        end = ends.get((left.status, left.pending, left.turn))
        if end is None:
            what = f"{left.status}, pending: {left.pending}, turn: {left.turn or 'none'}"
            case.verdict.say(9, f"{left.event} ended as {what}")
        case.verdict.counted[f"events {end}"] += 1
    dead = {event for event, left in case.left.items() if left.status == "dead_letter"}
    for job in case.remains.failed_jobs - dead:
        if case.lost_its_lock(job):
            # Given up as stalled, and then done after all by the process that had been frozen in it.
            case.verdict.counted["dead letters that a zombie handled"] += 1
        else:
            case.verdict.say(9, f"{job} is a dead letter in Redis only")
    for surprise in case.remains.surprises:
        case.verdict.say(9, surprise)


def count(case: Case) -> None:
    """Count what happened, so that a run can be seen to have been one."""
    counted = case.verdict.counted
    counted["runs"] = len(case.runs)
    counted["rolled back"] = sum("rolled back" in told for told in case.told.values())
    counted["in doubt"] = sum("in doubt" in told for told in case.told.values())
    counted["runs that failed"] = sum(run.how == "failed" for run in case.runs)
    counted["runs aborted"] = sum(run.how == "aborted" for run in case.runs)
    counted["runs cut short"] = sum(run.how in ("killed", "stopped") for run in case.runs)
    for trouble in case.troubles:
        counted[f"trouble: {trouble.kind}"] += 1
