"""`intelliflow outbox replay`: handled events once more, for chosen handlers.

Replayed events are new jobs, with effects of their own. They take no turns: beside them other events go on, and they
may end in any order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from events_worker.dead_letters import Pace
from events_worker.event import Replay
from events_worker.outbox import publication
from worker_ops.arguments import add_author, aggregate, event_id, moment, positive, rate
from worker_ops.exit_codes import CommandFailed, ExitCode
from worker_ops.outbox.opened import Outbox, run_with_outbox
from worker_ops.outbox.replay_store import Page, Range, ReplayStore
from worker_ops.outbox.selecting import edit_of
from worker_ops.output import add_output, say, write_rows
from worker_ops.servers import interruptible
from worker_runtime.bullmq.producer import NewJob

if TYPE_CHECKING:
    import argparse

    from worker_ops.arguments import Commands
    from worker_runtime.loops import StopSignal

EVENTS_A_SECOND = 100.0
MOST_WAITING = 10_000
# Until the handlers have worked off some of what waits.
LOOK_AGAIN_SECONDS = 0.5


def register(verbs: Commands) -> None:
    """Add the verb."""
    parser = verbs.add_parser("replay", help="run chosen handlers again for events that are handled already")
    parser.add_argument("--handlers", required=True, metavar="NAME,...", help="for these handlers, and no others")
    parser.add_argument("--from", dest="since", metavar="TIME", type=moment, help="committed from then, or 2h ago")
    parser.add_argument("--to", dest="until", metavar="TIME", type=moment, help="committed before then (default: now)")
    parser.add_argument("--aggregate", metavar="TYPE:ID", type=aggregate, help="of this aggregate, like lead:l-1")
    parser.add_argument("--type", metavar="TYPE", help="of this event type; lead.* is a family")
    parser.add_argument("--rate", type=rate, default=EVENTS_A_SECOND, metavar="N/s", help="(default: %(default)s)")
    parser.add_argument(
        "--most-waiting",
        type=positive,
        default=MOST_WAITING,
        help="wait while so many jobs wait (default: %(default)s)",
    )
    parser.add_argument("--replay-id", type=event_id, metavar="ID", help="go on with a replay that was stopped")
    parser.add_argument("--after", type=int, metavar="SEQUENCE", help="go on behind this event")
    add_author(parser, reason_needed=False)
    add_output(parser)
    parser.set_defaults(command=run_with_outbox(_replay))


async def _replay(asked: argparse.Namespace, outbox: Outbox) -> ExitCode:
    handlers = tuple(name.strip() for name in asked.handlers.split(",") if name.strip())
    if not handlers or not (asked.since or asked.aggregate):
        raise CommandFailed(ExitCode.USAGE, "say for whom (--handlers) and which: --from TIME, or --aggregate TYPE:ID")
    store = ReplayStore(outbox.database, outbox.settings.queue_max_payload_bytes)
    by_type = await store.choose(_range(asked))
    total = sum(row["events"] for row in by_type)
    if not asked.apply:
        write_rows([{"type": row["event_type"], "events": row["events"]} for row in by_type], asked.output)
        names = ", ".join(handlers)
        raise CommandFailed(ExitCode.REFUSED, f"this would replay {total} events for {names}; do it with --apply")
    replay = Replay(id=UUID(asked.replay_id) if asked.replay_id else uuid4(), handlers=handlers)
    await store.record(str(replay.id), edit_of(asked))
    say(f"replay {replay.id}: {total} events for {', '.join(handlers)}")
    return await _Replaying(asked, outbox, store, replay, total).run()


def _range(asked: argparse.Namespace) -> Range:
    aggregate_type, aggregate_id = asked.aggregate or (None, None)
    return Range(asked.since, asked.until, aggregate_type, aggregate_id, asked.type, asked.after)


class _Replaying:
    def __init__(
        self, asked: argparse.Namespace, outbox: Outbox, store: ReplayStore, replay: Replay, total: int
    ) -> None:
        self._asked = asked
        self._outbox = outbox
        self._store = store
        self._replay = replay
        self._total = total
        self._added = 0
        self._unpublishable = 0
        self._sequence: int | None = asked.after

    async def run(self) -> ExitCode:
        with interruptible() as stop:
            await self._add_all(stop)
        row = {
            "replayId": str(self._replay.id),
            "matched": self._total,
            "added": self._added,
            "unpublishable": self._unpublishable,
            "lastSequence": self._sequence,
        }
        write_rows([row], self._asked.output)
        if stop.requested.is_set():
            say(f"stopped; go on with --replay-id {self._replay.id} --after {self._sequence}")
            return ExitCode.PARTIAL
        return ExitCode.PARTIAL if self._unpublishable else ExitCode.OK

    async def _add_all(self, stop: StopSignal) -> None:
        pace, last = Pace(self._asked.rate), 0
        while not stop.requested.is_set() and (page := await self._store.page(last, pace.chunk)):
            if not await self._there_is_room(stop):
                return
            pause = asyncio.ensure_future(stop.sleep(pace.seconds))
            await self._add(page)
            last = page.last
            say(f"{self._added} of {self._total}")
            await pause

    async def _add(self, page: Page) -> None:
        limit = self._outbox.settings.queue_max_payload_bytes
        verdicts = [publication(event, limit, self._replay) for event in page.events]
        jobs = [verdict for verdict in verdicts if isinstance(verdict, NewJob)]
        await self._outbox.queue.add_bulk(jobs)
        self._added += len(jobs)
        self._unpublishable += len(verdicts) - len(jobs)
        self._sequence = page.events[-1].sequence if page.events else self._sequence

    async def _there_is_room(self, stop: StopSignal) -> bool:
        """Wait until there is; false when a stop came first."""
        while await self._outbox.queue.depth() >= self._asked.most_waiting:
            if await stop.sleep(LOOK_AGAIN_SECONDS):
                return False
        return True
