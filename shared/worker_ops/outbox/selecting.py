"""The arguments by which dead letters are chosen, and what a verb that changes them says and asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from events_worker.store import Edit, Selection
from worker_ops.arguments import aggregate, event_id, span
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import say, write_rows
from worker_runtime.health_board import timestamp

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from events_worker.dead_letters import DeadLetters, Plan
    from worker_ops.output import Row


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Let dead letters be chosen by what they are."""
    parser.add_argument("--type", metavar="TYPE", help="of this event type; lead.* is a family")
    parser.add_argument("--code", metavar="CODE", help="that died of this, like HANDLER_FAILED")
    parser.add_argument("--aggregate", metavar="TYPE:ID", type=aggregate, help="of this aggregate, like lead:l-1")
    parser.add_argument("--older-than", metavar="AGE", type=span, help="dead for longer than 90s, 15m, 2h, 7d")
    parser.add_argument("--newer-than", metavar="AGE", type=span, help="dead for less long than that")


def add_ids(parser: argparse.ArgumentParser) -> None:
    """Let dead letters be named instead."""
    parser.add_argument("event_ids", metavar="EVENT_ID", nargs="*", type=event_id, help="these events")


def edit_of(asked: argparse.Namespace) -> Edit:
    """Return who does it and why."""
    return Edit(asked.by, asked.reason)


def selection_of(asked: argparse.Namespace) -> Selection:
    """Return what the arguments choose."""
    now = datetime.now(UTC)
    aggregate_type, aggregate_id = asked.aggregate or (None, None)
    return Selection(
        event_ids=getattr(asked, "event_ids", None) or None,
        event_type=asked.type,
        aggregate_type=aggregate_type,
        aggregate_id=aggregate_id,
        code=asked.code,
        died_before=now - asked.older_than if asked.older_than else None,
        died_after=now - asked.newer_than if asked.newer_than else None,
    )


def refuse_everything(asked: argparse.Namespace) -> None:
    """Change nothing when nothing was said about what."""
    filters = (asked.type, asked.code, asked.aggregate, asked.older_than, asked.newer_than)
    named = bool(getattr(asked, "event_ids", None))
    if not (named or any(filters)):
        raise CommandFailed(ExitCode.USAGE, "say which: EVENT_ID..., --type, --code, --aggregate or an age")
    if named and any(filters):
        raise CommandFailed(ExitCode.USAGE, "name events or describe them, not both")


async def planned(dead_letters: DeadLetters, asked: argparse.Namespace) -> Plan:
    """Say what is chosen, and stop here unless it is nothing or to be applied; raises `CommandFailed`."""
    selection = selection_of(asked)
    plan = await dead_letters.plan(selection)
    if selection.event_ids and not plan.count:
        raise CommandFailed(ExitCode.NOT_FOUND, "none of these events is a dead letter")
    if plan.count and not asked.apply:
        write_rows(group_rows(plan), asked.output)
        raise CommandFailed(ExitCode.REFUSED, f"this would {asked.verb} {plan.count} events; do it with --apply")
    return plan


def group_rows(plan: Plan) -> list[Row]:
    """Write a plan as rows."""
    return [
        {
            "code": group.code,
            "type": group.event_type,
            "count": group.count,
            "oldest": timestamp(group.oldest.timestamp()),
            "newest": timestamp(group.newest.timestamp()),
            "example": group.example,
            "error": group.error,
        }
        for group in plan.groups
    ]


def write_outcomes(outcomes: Mapping[str, str], done: str, how: str) -> ExitCode:
    """Write what became of each named event."""
    write_rows([{"eventId": event, "outcome": outcome} for event, outcome in outcomes.items()], how)
    changed = list(outcomes.values()).count(done)
    if changed == len(outcomes):
        return ExitCode.OK
    return ExitCode.PARTIAL if changed else ExitCode.NOT_FOUND


def write_total(matched: int, done: str, changed: int, how: str, *, interrupted: bool) -> ExitCode:
    """Write what became of all that were described."""
    write_rows([{"matched": matched, done: changed, "left": max(0, matched - changed)}], how)
    if interrupted:
        say(f"stopped; {changed} were {done}, and the same command goes on where it stopped")
    return ExitCode.PARTIAL if interrupted else ExitCode.OK
