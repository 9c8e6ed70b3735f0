"""`intelliflow deliveries replay`: a notification once more, by a new job and under its old id."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from events_worker.dead_letters import Pace
from worker_ops.arguments import add_author, positive, rate
from worker_ops.deliveries.again import REPLAYED, Replaying
from worker_ops.deliveries.selecting import add_filters, group_row, selection_of
from worker_ops.deliveries.show import refuse_several
from worker_ops.deliveries.store import DeliveriesStore
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import interruptible, opened_database, opened_redis

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from worker_ops.arguments import Commands
    from worker_ops.deliveries.store import Selection
    from worker_runtime.loops import StopSignal
    from worker_runtime.settings import WorkerSettings

REPLAYS_A_SECOND = 100.0
MOST_NAMED = 1_000
# What is sent again by description, unless another state is named: nothing that somebody has got.
USUAL_STATE = "dead"


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("replay", help="send notifications again, under the same id")
    parser.add_argument("notification_ids", metavar="NOTIFICATION_ID", nargs="*", help="these, whatever their state")
    add_filters(parser, state=USUAL_STATE)
    parser.add_argument("--rate", type=rate, default=REPLAYS_A_SECOND, metavar="N/s", help="(default: %(default)s)")
    parser.add_argument("--limit", type=positive, help="at most so many, those that changed first")
    add_author(parser, reason_needed=False)
    add_output(parser)
    parser.set_defaults(command=lambda asked, settings: asyncio.run(_run(asked, settings)))


async def _run(asked: argparse.Namespace, settings: WorkerSettings) -> ExitCode:
    selection = _selection(asked)
    async with opened_database(settings) as database, opened_redis(settings) as redis:
        store = DeliveriesStore(database)
        matched = await _planned(asked, store, selection)
        replaying = Replaying(store, redis, settings, asked.by, asked.reason)
        if asked.notification_ids:
            return await _replay_named(asked, store, selection, replaying)
        with interruptible() as stop:
            return await _replay_described(asked, store, selection, replaying, matched, stop)


def _selection(asked: argparse.Namespace) -> Selection:
    selection = selection_of(asked)
    described = any((asked.state, asked.code, asked.older_than, asked.newer_than))
    if asked.notification_ids and described:
        raise CommandFailed(ExitCode.USAGE, "name notifications or describe them, not both")
    if asked.notification_ids:
        if len(asked.notification_ids) > MOST_NAMED:
            raise CommandFailed(ExitCode.USAGE, f"name at most {MOST_NAMED} notifications, or describe them")
        return selection
    if not (described or asked.channel or asked.tenant):
        raise CommandFailed(
            ExitCode.USAGE, "say which: NOTIFICATION_ID..., a --state, --channel, --tenant, --code or age"
        )
    return replace(selection, state=selection.state or USUAL_STATE)


async def _planned(asked: argparse.Namespace, store: DeliveriesStore, selection: Selection) -> int:
    """Say what is chosen, and stop here unless it is nothing or to be applied."""
    groups = await store.groups(selection)
    count = sum(int(row["count"]) for row in groups)
    if selection.notifications and not count:
        raise CommandFailed(ExitCode.NOT_FOUND, "nothing is known of these notifications")
    if count and not asked.apply:
        write_rows([group_row(row) for row in groups], asked.output)
        raise CommandFailed(ExitCode.REFUSED, f"this would send {count} notifications again; do it with --apply")
    return count


async def _replay_named(
    asked: argparse.Namespace, store: DeliveriesStore, selection: Selection, replaying: Replaying
) -> ExitCode:
    found = await store.page(selection, 2 * MOST_NAMED)
    refuse_several(found)
    outcomes = {key[1]: outcome for key, outcome in (await replaying.replay(found)).items()}
    rows = [
        {"notificationId": name, "outcome": outcomes.get(name, "nothing is known of it")}
        for name in dict.fromkeys(asked.notification_ids)
    ]
    write_rows(rows, asked.output)
    replayed = sum(row["outcome"] == REPLAYED for row in rows)
    if replayed == len(rows):
        return ExitCode.OK
    return ExitCode.PARTIAL if replayed else ExitCode.NOT_FOUND


async def _replay_described(
    asked: argparse.Namespace,
    store: DeliveriesStore,
    selection: Selection,
    replaying: Replaying,
    matched: int,
    stop: StopSignal,
) -> ExitCode:
    """Replay what is selected and was so by now: what fails again meanwhile is not sent a second time."""
    until = replace(selection, changed_before=selection.changed_before or await store.now())
    pace, last, outcomes = Pace(asked.rate), None, Counter[str]()
    left = min(matched, asked.limit or matched)
    while not stop.requested.is_set() and left and (chunk := await _chunk(store, until, pace, left, last)):
        pause = asyncio.ensure_future(stop.sleep(pace.seconds))
        outcomes.update((await replaying.replay(chunk)).values())
        last, left = chunk[-1], left - len(chunk)
        say(f"{outcomes.total()} of {matched}")
        await pause
    return _told(asked, matched, outcomes, stopped=stop.requested.is_set())


async def _chunk(store: DeliveriesStore, selection: Selection, pace: Pace, left: int, last: Any) -> Sequence[Any]:
    return await store.page(selection, min(pace.chunk, left), last)


def _told(asked: argparse.Namespace, matched: int, outcomes: Mapping[str, int], *, stopped: bool) -> ExitCode:
    replayed = outcomes.get(REPLAYED, 0)
    write_rows([{"matched": matched, "replayed": replayed, "left": max(0, matched - replayed)}], asked.output)
    others = {outcome: count for outcome, count in outcomes.items() if outcome != REPLAYED}
    for outcome, count in others.items():
        say(f"{count}: {outcome}")
    if stopped:
        say("stopped; the same command goes on where it stopped")
    return ExitCode.PARTIAL if others or stopped else ExitCode.OK
