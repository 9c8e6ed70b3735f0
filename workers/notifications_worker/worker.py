"""The notifications-worker: one loop for each channel that is on, over one ledger."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from notifications_worker.callbacks.effects import DeliveryUpdates, LoggedUpdates, RecordedUpdates
from notifications_worker.callbacks.opt_outs import SharedSuppressions
from notifications_worker.callbacks.routes import callback_routes
from notifications_worker.callbacks.server import opened_callbacks
from notifications_worker.channels import CHANNELS
from notifications_worker.delivery import Delivery, Desk
from notifications_worker.ledger import TIME_LIMIT_SECONDS, Ledger, RedisLedger
from notifications_worker.limits import Limits
from notifications_worker.notification import Notification
from notifications_worker.preferences import Preferences
from notifications_worker.settings import NotificationsSettings
from notifications_worker.store import HistoryStore, PostgresLedger, SuppressionStore
from notifications_worker.suppression import RedisSuppressions, Suppressions
from notifications_worker.upkeep import Upkeep
from worker_runtime.delivery_state import DeliveryRecords, RateLimits, SuppressedAddresses
from worker_runtime.postgres import BY_INDEX, Database, require_postgres
from worker_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifications_worker.channel import AnyChannel, AnyRoute
    from worker_runtime.breaker import Breaker
    from worker_runtime.consumer import Consumer
    from worker_runtime.loops import Loop
    from worker_runtime.outcome import Hold
    from worker_runtime.runtime import Runtime

__all__ = ["NotificationsWorker"]

# The rare call that a provider takes longer over loses its lease as the circuit's probe, and another may probe; a lease
# as long as the time limit would leave the circuit half-open that long after a worker died probing.
PROBE_SECONDS = 60.0


class NotificationsWorker(Worker[NotificationsSettings]):
    """Delivers the jobs of the `notifications:*` queues."""

    name = "notifications-worker"
    settings_type = NotificationsSettings
    queue_keys = tuple(CHANNELS)

    @asynccontextmanager
    async def on_start(self, runtime: Runtime[NotificationsSettings]) -> AsyncIterator[Sequence[Loop]]:
        """Open the record and the channels that are on, and yield a loop for each; other queues are left alone."""
        async with AsyncExitStack() as opened:
            books = await opened.enter_async_context(opened_books(runtime))
            doors = callback_routes(runtime.settings, books.updates, books.suppressions)
            loops: list[Loop] = [
                *books.loops,
                *await opened.enter_async_context(opened_callbacks(runtime.settings, doors)),
            ]
            for queue, kind in CHANNELS.items():
                if not runtime.settings.enabled(queue):
                    runtime.leave_alone(queue)
                    continue
                channel = await opened.enter_async_context(kind.open(runtime.settings))
                loops.append(consumer(runtime, queue, channel, books))
            yield loops


@dataclass(frozen=True)
class Books:
    """Where deliveries and suppressed addresses are written down."""

    ledger: Ledger
    suppressions: Suppressions
    updates: DeliveryUpdates
    loops: tuple[Loop, ...] = ()


@asynccontextmanager
async def opened_books(runtime: Runtime[NotificationsSettings]) -> AsyncIterator[Books]:
    """Open the record in PostgreSQL, or the smaller one in Redis where there is no DATABASE_URL."""
    prefix = runtime.settings.queue_prefix
    if runtime.settings.database_url is None:
        records = RedisLedger(DeliveryRecords(runtime.redis, prefix))
        yield Books(records, RedisSuppressions(SuppressedAddresses(runtime.redis, prefix)), LoggedUpdates())
        return
    url = runtime.settings.database_url.get_secret_value()
    async with AsyncExitStack() as opened:
        # A connection for each kind of work, so that none waits for another's disk.
        looks, begins, ends, rest = [
            await opened.enter_async_context(Database(url, application=runtime.worker, settings=BY_INDEX))
            for _ in range(4)
        ]
        await require_postgres(runtime, rest)
        history, ledger = HistoryStore(rest), PostgresLedger(looks, begins, ends)
        upkeep = Upkeep(history, runtime.settings.delivery_history_days)
        yield Books(ledger, SuppressionStore(looks, rest), RecordedUpdates(history), (upkeep,))


def consumer(
    runtime: Runtime[NotificationsSettings], queue: str, channel: AnyChannel, books: Books
) -> Consumer[Notification]:
    """Return the loop that delivers one channel's queue; while all its providers' circuits are open, it rests."""
    settings = runtime.settings

    def breaker(route: AnyRoute) -> Breaker:
        return runtime.breaker(route.circuit, PROBE_SECONDS)

    for provider in set(channel.providers) - set(channel.circuits):
        # Its circuits come with its endpoints; their series is there from the first scrape.
        runtime.metrics.dependencies.announce(provider)
    shared = [runtime.breaker(circuit, PROBE_SECONDS) for circuit in channel.circuits]
    delivery = Delivery(
        Desk(
            channel,
            breaker,
            books.ledger,
            # Tenants share the number that a person says STOP to.
            SharedSuppressions(books.suppressions) if queue == "SMS" else books.suppressions,
            Limits(RateLimits(runtime.redis, settings.queue_prefix), channel.name, settings.tenant_limit(channel.name)),
            Preferences(runtime.clock, settings.quiet_hours_of(channel.name), settings.hook()),
            runtime.metrics.delivery,
            runtime.clock,
            runtime.random,
        )
    )

    async def closed_for() -> float:
        return min([await one.open_for() for one in shared], default=0.0)

    label = settings.queue_name(queue).label

    async def buried(job_id: str, _name: str, reason: str, _attempt: int) -> Hold | None:
        code, _, sentence = reason.partition(": ")
        return await delivery.buried(f"{label}:{job_id}", code, sentence)

    return runtime.consumer(
        queue, Notification, delivery, closed_for, TIME_LIMIT_SECONDS, buried, settings.urgent_reserve
    )
