"""What an execution did when: a bar for each attempt of a step, and an axis on which days of waiting take little room.

Pure: it is made of rows and of a time.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal

from worker_runtime.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

State = Literal["queued", "running", "completed", "failed", "waited", "waiting"]
# While only these are under way, nobody works on the execution.
IDLE = ("queued", "waited", "waiting")
WAITING_KINDS = ("wait", "wait_for_event", "workflow")
# What idle time gets of the axis at most, as a share of the time at work.
IDLE_SHARE = 0.25
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt of a step, or a wait. Until `next_at` the step then waits for its next attempt.

    `ends` is the moment of looking for what goes on; `note` says in words how it ended or what it waits for.
    """

    step: str
    kind: str
    state: State
    begins: datetime
    ends: datetime
    note: str
    round: int = 0
    attempt: int = 1
    next_at: datetime | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, (self.ends - self.begins).total_seconds())

    @property
    def label(self) -> str:
        """The step, and which attempt and round this is, if not the first."""
        again = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        return f"{self.step}{again}" + (f" (round {self.round + 1})" if self.round else "")


@dataclass(frozen=True, slots=True)
class Timeline:
    """The bars of an execution in the order in which they began."""

    name: str
    summary: str
    begins: datetime
    ends: datetime
    bars: tuple[Bar, ...]

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return max(0.0, (self.ends - self.begins).total_seconds())


class Axis:
    """Places moments between 0 and 1: time at work in proportion, idle time no longer than a share of it."""

    def __init__(self, timeline: Timeline) -> None:
        self._moments = _moments(timeline)
        stretches = [*pairwise(self._moments)]
        lengths = [_seconds(*stretch) for stretch in stretches]
        working = _working(timeline, stretches)
        most = IDLE_SHARE * sum(length for length, busy in zip(lengths, working, strict=True) if busy)
        weights = [
            length if busy or not most else min(length, most) for length, busy in zip(lengths, working, strict=True)
        ]
        self._passed = [0.0, *accumulate(weights)]
        self.shortened = [
            (stretch, length)
            for stretch, length, weight in zip(stretches, lengths, weights, strict=True)
            if weight < length
        ]

    def place(self, moment: datetime) -> float:
        """Return where a moment is; those outside are at the ends."""
        if not self._passed[-1] or moment <= self._moments[0]:
            return 0.0
        if moment >= self._moments[-1]:
            return 1.0
        number = bisect_right(self._moments, moment) - 1
        begin, end = self._moments[number : number + 2]
        before, after = self._passed[number : number + 2]
        return (before + (after - before) * ((moment - begin) / (end - begin))) / self._passed[-1]


def _moments(timeline: Timeline) -> list[datetime]:
    """Return when anything begins or ends, in order."""
    found = {timeline.begins, timeline.ends}
    for bar in timeline.bars:
        found |= {bar.begins, bar.ends, bar.next_at or bar.ends}
    return sorted(moment for moment in found if timeline.begins <= moment <= timeline.ends)


def _working(timeline: Timeline, stretches: Sequence[tuple[datetime, datetime]]) -> list[bool]:
    """Tell of each stretch between two moments whether somebody was at work."""
    turns = sorted((bar.begins, bar.ends) for bar in timeline.bars if bar.state not in IDLE)
    begins = [begin for begin, _ in turns]
    latest = [*accumulate((end for _, end in turns), max)]
    found = []
    for begin, end in stretches:
        known = bisect_right(begins, begin)
        found.append(known > 0 and latest[known - 1] >= end)
    return found


def timeline_of(execution: Any, steps: Sequence[Any], *, reveal: bool = False) -> Timeline:
    """Return the timeline of an execution as its row and those of its steps tell it, at the row's `now`."""
    ends = execution["completed_at"] or execution["now"]
    bars = [_queued(execution, ends), *_steps(execution, steps, ends, reveal=reveal), _running(execution, steps, ends)]
    known = tuple(bar for bar in bars if bar is not None)
    latest = max([ends, *(bar.ends for bar in known)])
    name = f"{execution['workflow']} {execution['id']}"
    took = span((latest - execution["created_at"]).total_seconds())
    summary = (
        f"{execution['status']} after {took}" if execution["completed_at"] else f"{execution['status']}, {took} old"
    )
    return Timeline(name, summary, execution["created_at"], latest, known)


def _queued(execution: Any, ends: datetime) -> Bar | None:
    begun = execution["started_at"]
    note = f"started after {span(_seconds(execution['created_at'], begun))}" if begun else "not started"
    until = min(begun or ends, ends)
    return Bar("queued", "queue", "queued", execution["created_at"], max(until, execution["created_at"]), note)


def _steps(execution: Any, steps: Sequence[Any], ends: datetime, *, reveal: bool) -> list[Bar]:
    begun = {(row["step"], row["round"], row["attempt"]): row["started_at"] for row in steps}
    return [_bar(execution, row, _next_attempt(execution, row, begun), ends, reveal=reveal) for row in steps]


def _bar(execution: Any, row: Any, next_at: datetime | None, ends: datetime, *, reveal: bool) -> Bar:
    idle = row["kind"] in WAITING_KINDS
    state: State = row["status"] if row["status"] != "completed" or not idle else "waited"
    finished = max(row["started_at"], row["finished_at"] or ends)
    note = _note(execution, row, finished, next_at)
    return Bar(
        row["step"],
        row["kind"],
        state,
        row["started_at"],
        finished,
        note if reveal else redact(note),
        row["round"],
        row["attempt"],
        next_at,
    )


def _note(execution: Any, row: Any, finished: datetime, next_at: datetime | None) -> str:
    took = span(_seconds(row["started_at"], finished))
    match row["status"]:
        case "completed":
            return f"{'waited' if row['kind'] in WAITING_KINDS else 'completed in'} {took}"
        case "failed":
            again = f", next attempt after {span(_seconds(finished, next_at))}" if next_at else ""
            return f"failed in {took}{again}: {_on_one_line(row['error'] or 'no reason')}"
        case _:
            verb = "waiting" if execution["completed_at"] is None else "waited, to no end,"
            return f"{verb} for {_awaited(row['output'])}"


def _awaited(output: str | None) -> str:
    """Say what a waiting step waits for, by its record."""
    awaited = json.loads(output or "null") or {}
    due = f"until {awaited['until']}" if awaited.get("until") else ""
    if "event" in awaited:
        return f"{awaited['event']} of {awaited.get('correlation')} {due}".strip()
    if "executionId" in awaited:
        return f"execution {awaited['executionId']}"
    return due.removeprefix("until ") or "an event"


def _next_attempt(execution: Any, row: Any, begun: Mapping[Any, datetime]) -> datetime | None:
    """Return when a failed step was, or will be, tried again."""
    if row["status"] != "failed":
        return None
    if (tried := begun.get((row["step"], row["round"], row["attempt"] + 1))) is not None:
        return tried
    pending = execution["status"] == "retry_pending" and row["round"] == execution["round"] and not _is_final(row)
    return execution["next_retry_at"] if pending else None


def _is_final(row: Any) -> bool:
    return bool(json.loads(row["output"] or "null") == {"final": True})


def _running(execution: Any, steps: Sequence[Any], ends: datetime) -> Bar | None:
    """Return the turn that is under way: from the last thing written until now, as long as its lease lasts."""
    if execution["status"] != "running":
        return None
    written = [row["finished_at"] or row["started_at"] for row in steps]
    began = min(ends, max([execution["started_at"] or execution["created_at"], *written]))
    left = _seconds(ends, execution["ready_at"])
    lease = f"its lease ends in {span(left)}" if left > 0 else f"its lease ended {span(-left)} ago"
    note = f"at work at {execution['lease_owner'] or 'a worker'}; {lease}"
    return Bar("at work", "lease", "running", began, ends, note)


def span(seconds: float) -> str:
    """Write a span of time for people: `120 ms`, `4.2 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    for size, name, smaller, its_name in ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1.0, "s")):
        if seconds >= size:
            rest = int(seconds % size // smaller)
            return f"{int(seconds // size)} {name}" + (f" {rest} {its_name}" if rest else "")
    return f"{seconds:.1f} s"


def _seconds(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
