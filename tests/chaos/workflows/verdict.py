"""What a run of workflows must look like, judged from the history and from what is left. Nothing here asks a server.

What may be excused is said where it is excused, and counted: a request that was sent again, because whoever sent it was
killed, froze, or lost its lease before its answer was written down. The receiver then knows its key, and has no second
effect: nothing excuses that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid5

from chaos.runs import Trouble, troubles_of
from chaos.verdict import Verdict
from chaos.workflows.plans import ATTEMPTS, CHILD, KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.history import Entry

FINAL = ("completed", "failed", "cancelled")
WORKERS = "workflow-worker"
# What takes an answer away from whoever asked; a stop, a pause and a cut connection do not.
LOSSES = ("killed", "frozen", "postgres", "reset")
CRASHES_THAT_STALL = 3
TOLD = "told"


class Row(NamedTuple):
    """An execution as PostgreSQL has it at the end."""

    id: str
    organization: str
    workflow: str
    status: str
    retry_count: int
    total_attempts: int
    round: int
    error: str
    owner: str | None
    parent: str | None
    fails: int | None


class Record(NamedTuple):
    """A line of the journal."""

    execution: str
    step: str
    round: int
    attempt: int
    kind: str
    status: str


class Letter(NamedTuple):
    """A dead letter."""

    execution: str
    attempt: int
    total_attempts: int
    error: str


class Turn(NamedTuple):
    """A change of an execution as PostgreSQL noted it; `by` names the application and, of a worker, its process."""

    execution: str
    by: str
    old_status: str
    new_status: str
    old_owner: str | None
    new_owner: str | None
    old_token: int
    new_token: int
    old_round: int
    expired: bool


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left at the end. `jobs` counts the notifications by their ids, `messages` are of the queue."""

    rows: Sequence[Row]
    records: Sequence[Record] = ()
    letters: Sequence[Letter] = ()
    turns: Sequence[Turn] = ()
    strangers: Sequence[str] = ()
    messages: Sequence[str] = ()
    jobs: Mapping[str, int] = field(default_factory=dict)
    waits: int = 0
    at_work: int = 0
    surprises: Sequence[str] = ()


def judge(history: Sequence[Entry], remains: Remains) -> Verdict:
    """Judge a run that has come to rest."""
    case = Case(history, remains)
    nothing_is_lost(case)
    nothing_is_left_running(case)
    effects_happen_once(case)
    notifications_are_sent_once(case)
    attempts_are_exact(case)
    ends_are_as_planned(case)
    only_holders_write(case)
    count(case)
    return case.verdict


class Case:
    """The evidence, arranged."""

    def __init__(self, history: Sequence[Entry], remains: Remains) -> None:
        self.history = history
        self.remains = remains
        self.verdict = Verdict()
        self.troubles = [trouble for trouble in troubles_of(history) if trouble.kind in LOSSES]
        self.rows = {row.id: row for row in remains.rows}
        self.told: dict[str, set[str]] = defaultdict(set)
        self.asked: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        self.effects: dict[tuple[str, str], list[str]] = defaultdict(list)
        for entry in history:
            if entry.event:
                self.told[entry.what].add(entry.event)
            if entry.what == "asked":
                self.asked[entry.event, entry.handler].append(entry)
            elif entry.what == "effect":
                self.effects[entry.event, entry.handler].append(entry.run)
        self.records: dict[str, list[Record]] = defaultdict(list)
        for record in remains.records:
            self.records[record.execution].append(record)
        self.turns: dict[str, list[Turn]] = defaultdict(list)
        for turn in remains.turns:
            self.turns[turn.execution].append(turn)
        self.letters: dict[str, list[Letter]] = defaultdict(list)
        for letter in remains.letters:
            self.letters[letter.execution].append(letter)
        self.children: dict[str, list[Row]] = defaultdict(list)
        for row in remains.rows:
            if row.parent is not None:
                self.children[row.parent].append(row)

    def losses(self, organization: str, since: float) -> list[Trouble]:
        """Return what may have taken away the answer to a request of then or later."""
        return [
            trouble
            for trouble in self.troubles
            if trouble.until >= since and (not trouble.event or trouble.event == organization)
        ]

    def was_cancelled(self, row: Row) -> bool:
        """Tell whether somebody wanted it to end, or what it stems from."""
        parent = self.rows.get(row.parent or "")
        return row.id in self.told["cancelling"] or (parent is not None and self.was_cancelled(parent))

    def times_vanished(self, execution: str) -> int:
        """Count how often PostgreSQL saw a worker take over from one that had not ended its turn."""
        return sum(
            turn.old_status == "running" and is_worker(turn) and turn.expired and turn.new_token > turn.old_token
            for turn in self.turns[execution]
        )


def nothing_is_lost(case: Case) -> None:
    """1. Whatever was started is there, and nothing else is; all of it is over."""
    for execution in case.told["started"] - set(case.rows):
        case.verdict.say(1, f"{execution} was started and is gone")
    for row in case.rows.values():
        if row.id not in case.told["starting"] and row.parent not in case.rows:
            case.verdict.say(1, f"{row.id} was started by nobody")
        if row.status not in FINAL:
            case.verdict.say(1, f"{row.id} ({row.workflow}) is {row.status} at the end")


def nothing_is_left_running(case: Case) -> None:
    """2. No lease, no wait, no message and no organisation at work is left, and no process ended by itself."""
    remains = case.remains
    for row in case.rows.values():
        if row.owner is not None:
            case.verdict.say(2, f"{row.id} is over and {row.owner} has it")
    for execution in remains.messages:
        case.verdict.say(2, f"{execution} is over, and a message for it is in the queue")
    if remains.waits or remains.at_work:
        case.verdict.say(2, f"{remains.waits} waits and {remains.at_work} organisations at work are left")
    for surprise in remains.surprises:
        case.verdict.say(2, surprise)


def effects_happen_once(case: Case) -> None:
    """3. No effect happens twice, none of a completed execution is missing, none happens out of nowhere."""
    for (execution, step), keys in case.effects.items():
        if len(keys) > 1:
            case.verdict.say(3, f"{execution}: {step} had its effect {len(keys)} times, with keys {sorted(set(keys))}")
        if execution not in case.rows:
            case.verdict.say(3, f"{execution}: {step} had an effect, and there is no such execution")
    for row in case.rows.values():
        planned = KINDS[row.workflow].effects
        missing = [step for step in planned if (row.id, step) not in case.effects]
        if missing and row.status == "completed":
            case.verdict.say(3, f"{row.id} ({row.workflow}) is completed without {missing}")
        for record in case.records[row.id]:
            if record.kind in ("http", "step") and record.status == "completed" and record.step in missing:
                case.verdict.say(3, f"{row.id}: {record.step} is completed and had no effect")


def notifications_are_sent_once(case: Case) -> None:
    """4. Each step that told somebody has one job; each job is of such a step."""
    told = {str(uuid5(UUID(row.id), TOLD)): row for row in case.rows.values() if KINDS[row.workflow].notifies}
    done = {record.execution for record in case.remains.records if (record.step, record.status) == (TOLD, "completed")}
    for job, times in case.remains.jobs.items():
        if job not in told or times > 1:
            case.verdict.say(4, f"notification {job} is there {times} times, and is of {told.get(job)}")
    for job, row in told.items():
        if (row.id in done or row.status == "completed") and not case.remains.jobs.get(job):
            case.verdict.say(4, f"{row.id} has told nobody")


def attempts_are_exact(case: Case) -> None:
    """5. Rows, dead letters and the receiver tell the same number of attempts."""
    for row in case.rows.values():
        requests_are_recorded(case, row)
        records_are_numbered(case, row)
        attempts_are_counted(case, row)


def requests_are_recorded(case: Case, row: Row) -> None:
    """Every request is an attempt of the journal, but for those whose answer was lost: so many at most."""
    tried = Counter(record.step for record in case.records[row.id] if record.status in ("completed", "failed"))
    for step in (*KINDS[row.workflow].effects, "never"):
        asked = case.asked.get((row.id, step), [])
        again = len(asked) - tried[step]
        if again < 0:
            case.verdict.say(5, f"{row.id}: {step} has {tried[step]} attempts and was asked for {len(asked)} times")
        elif again and again > len(losses := case.losses(row.organization, asked[0].at)):
            case.verdict.say(5, f"{row.id}: {step} was asked for {again} times more often than tried, after {losses}")
        case.verdict.counted["requests"] += len(asked)
        case.verdict.counted["requests again"] += max(0, again)


def records_are_numbered(case: Case, row: Row) -> None:
    """Attempts of a step in a round are 1, 2, 3 and so on; there are no more than five."""
    attempts: dict[tuple[str, int], list[int]] = defaultdict(list)
    for record in case.records[row.id]:
        if record.kind in ("http", "step"):
            attempts[record.step, record.round].append(record.attempt)
    for (step, number), those in attempts.items():
        if sorted(those) != list(range(1, len(those) + 1)) or len(those) > ATTEMPTS:
            case.verdict.say(5, f"{row.id}: {step} has the attempts {sorted(those)} in round {number}")


def attempts_are_counted(case: Case, row: Row) -> None:
    """The row counts the turns that ended in success or failure; a dead letter says what the row says."""
    ends = [turn for turn in case.turns[row.id] if turn.old_status == "running" and is_worker(turn)]
    attempted = sum(turn.new_status in ("completed", "failed", "retry_pending") for turn in ends)
    if attempted != row.total_attempts:
        case.verdict.say(5, f"{row.id} says {row.total_attempts} attempts, and {attempted} turns ended so")
    letters, failures = case.letters[row.id], sum(turn.new_status == "failed" for turn in ends)
    if len(letters) != failures:
        case.verdict.say(5, f"{row.id} failed {failures} times and has {len(letters)} dead letters")
    if row.status == "failed" and letters:
        last = letters[-1]
        if (last.attempt, last.total_attempts, last.error) != (row.retry_count, row.total_attempts, row.error):
            case.verdict.say(5, f"{row.id}: {last} is not what its row says: {row}")


def ends_are_as_planned(case: Case) -> None:
    """6. What nobody cancelled ends as its definition says, or is quarantined for a reason."""
    for row in case.rows.values():
        kind, stalled = KINDS[row.workflow], row.error.startswith("STALLED") and row.status == "failed"
        if row.status not in FINAL or (row.status == "cancelled" and case.was_cancelled(row)):
            continue
        if stalled:
            if case.times_vanished(row.id) < CRASHES_THAT_STALL:
                case.verdict.say(6, f"{row.id} is {row.error!r} and was taken over {case.times_vanished(row.id)} times")
        elif row.status == "failed" and (ends := {child.status for child in case.children[row.id]} - {"completed"}):
            case.verdict.counted[f"parents of {min(ends)} children"] += 1
        elif row.status != kind.ends:
            case.verdict.say(6, f"{row.id} ({row.workflow}) is {row.status}: {row.error}")
        elif row.status == "failed":
            tried_to_the_end(case, row, kind.tried)


def tried_to_the_end(case: Case, row: Row, times: int) -> None:
    """Look whether the last step was tried as often as it had to be, and the dead letter says so."""
    tried = [one for one in case.records[row.id] if (one.step, one.round) == ("never", row.round)]
    if len(tried) != times or [letter.attempt for letter in case.letters[row.id][-1:]] != [times]:
        letters = case.letters[row.id]
        case.verdict.say(6, f"{row.id} ({row.workflow}) failed after {len(tried)} attempts of {times}: {letters}")


def only_holders_write(case: Case) -> None:
    """7. Who ends a turn has its lease; who takes an execution over waits until the lease is over."""
    for stranger in case.remains.strangers:
        case.verdict.say(7, stranger)
    processes = {turn.new_owner: turn.by for turn in case.remains.turns if is_claim(turn)}
    for turn in case.remains.turns:
        if turn.new_token < turn.old_token or (turn.new_status != turn.old_status and turn.new_token == turn.old_token):
            case.verdict.say(7, f"no newer token: {turn}")
        if not is_worker(turn) or turn.old_status != "running":
            continue
        takes_over = turn.new_token > turn.old_token and turn.expired
        if processes.get(turn.old_owner) != turn.by and not takes_over:
            case.verdict.say(7, f"{turn.by} wrote what {turn.old_owner} had: {turn}")


def is_worker(turn: Turn) -> bool:
    """Tell a worker's deed from an operator's."""
    return turn.by.startswith(WORKERS)


def is_claim(turn: Turn) -> bool:
    """Tell a turn by which a worker takes an execution."""
    return is_worker(turn) and turn.new_status == "running" and turn.new_token > turn.old_token


def count(case: Case) -> None:
    """Note what there was."""
    counted = case.verdict.counted
    for row in case.rows.values():
        counted[f"executions {row.status}"] += 1
        counted["quarantined"] += row.error.startswith("STALLED") and row.status == "failed"
    counted["effects"] += len(case.effects)
    counted["notifications"] += len(case.remains.jobs)
    counted["dead letters"] += len(case.remains.letters)
    counted["taken over"] += sum(case.times_vanished(row.id) for row in case.rows.values())
    counted["children"] += sum(row.workflow == CHILD for row in case.rows.values())
    operators = ("purged", "sent again", "paused", "disabled", "cancelling", "stopped", "cut off")
    for entry in case.history:
        if entry.what in operators:
            counted[f"trouble: {entry.what}"] += 1
    for trouble in case.troubles:
        counted[f"trouble: {trouble.kind}"] += 1
