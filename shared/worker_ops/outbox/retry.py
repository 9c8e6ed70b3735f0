"""`intelliflow outbox retry` and `drain`: dead events are pending again, and run who had not finished with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from events_worker.dead_letters import RETRIED, Pace, PayloadRefused
from events_worker.store.dead_letters import MOST_AT_ONCE
from worker_ops.arguments import add_author, positive, rate
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.outbox.opened import Outbox, run_with_outbox
from worker_ops.outbox.selecting import (
    add_filters,
    add_ids,
    edit_of,
    planned,
    refuse_everything,
    selection_of,
    write_outcomes,
    write_total,
)
from worker_ops.output import add_output, say
from worker_ops.servers import interruptible

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands


def register(verbs: Commands) -> None:
    """Add the verbs."""
    retry = verbs.add_parser("retry", help="try dead events again, one with another payload if need be")
    add_ids(retry)
    add_filters(retry)
    retry.add_argument("--payload-file", type=Path, metavar="FILE", help="the one event's new payload, in JSON")
    retry.add_argument("--limit", type=positive, help="at most so many, those that died first")
    add_author(retry, reason_needed=False)
    add_output(retry)
    retry.set_defaults(command=run_with_outbox(_retry), verb="retry", rate=None)
    drain = verbs.add_parser("drain", help="try all dead events of a type again, at a rate")
    drain.add_argument("--type", required=True, metavar="TYPE", help="of this event type; lead.* is a family")
    drain.add_argument("--code", metavar="CODE", help="that died of this, like HANDLER_FAILED")
    drain.add_argument("--rate", type=rate, required=True, metavar="N/s", help="events a second")
    drain.add_argument("--limit", type=positive, help="at most so many, those that died first")
    add_author(drain, reason_needed=False)
    add_output(drain)
    nothing = {"aggregate": None, "older_than": None, "newer_than": None, "payload_file": None}
    drain.set_defaults(command=run_with_outbox(_retry), verb="retry", **nothing)


async def _retry(asked: argparse.Namespace, outbox: Outbox) -> ExitCode:
    refuse_everything(asked)
    payload = await _payload(asked, outbox)
    plan = await planned(outbox.dead_letters, asked)
    if not plan.count:
        return write_total(0, RETRIED, 0, asked.output, interrupted=False)
    if getattr(asked, "event_ids", None):
        return await _retry_named(asked, outbox, payload)
    return await _retry_described(asked, outbox, plan.count)


async def _retry_named(asked: argparse.Namespace, outbox: Outbox, payload: str | None) -> ExitCode:
    outcomes: dict[str, str] = {}
    for start in range(0, len(asked.event_ids), MOST_AT_ONCE):
        chunk = asked.event_ids[start : start + MOST_AT_ONCE]
        outcomes |= await outbox.dead_letters.retry(chunk, edit_of(asked), payload)
    return write_outcomes(outcomes, RETRIED, asked.output)


async def _retry_described(asked: argparse.Namespace, outbox: Outbox, matched: int) -> ExitCode:
    changed, matched = 0, min(matched, asked.limit or matched)
    with interruptible() as stop:
        chunks = outbox.dead_letters.retry_all(
            selection_of(asked), edit_of(asked), pace=Pace(asked.rate), stop=stop, most=asked.limit
        )
        async for retried in chunks:
            changed += retried
            say(f"{changed} of {matched}")
        return write_total(matched, RETRIED, changed, asked.output, interrupted=stop.requested.is_set())


async def _payload(asked: argparse.Namespace, outbox: Outbox) -> str | None:
    if asked.payload_file is None:
        return None
    try:
        text: str = asked.payload_file.read_text(encoding="utf-8")
        await outbox.dead_letters.check(asked.event_ids, text)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(ExitCode.FAILED, f"{asked.payload_file}: {error}") from error
    except PayloadRefused as refusal:
        raise CommandFailed(ExitCode.REFUSED, str(refusal)) from refusal
    return text
