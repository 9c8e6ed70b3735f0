"""The notifications-worker: one loop for each channel that is on."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from notifications_worker.channels import CHANNELS
from notifications_worker.claim import TIME_LIMIT_SECONDS
from notifications_worker.delivery import Delivery
from notifications_worker.notification import Notification
from notifications_worker.settings import NotificationsSettings
from worker_runtime.state import DeliveryRecords
from worker_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifications_worker.channel import AnyChannel
    from worker_runtime.consumer import Consumer
    from worker_runtime.loops import Loop
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
        """Open the channels that are on and yield a consumer for each; a queue whose channel is off is left alone."""
        async with AsyncExitStack() as opened:
            loops = []
            for queue, open_channel in CHANNELS.items():
                if not runtime.settings.enabled(queue):
                    runtime.leave_alone(queue)
                    continue
                channel = await opened.enter_async_context(open_channel(runtime.settings))
                loops.append(consumer(runtime, queue, channel))
            yield loops


def consumer(runtime: Runtime[NotificationsSettings], queue: str, channel: AnyChannel) -> Consumer[Notification]:
    """Return the loop that delivers one channel's queue; while its provider's circuit is open, it fetches nothing."""
    breaker = runtime.breaker(channel.provider, PROBE_SECONDS)
    records = DeliveryRecords(runtime.redis, runtime.settings.queue_prefix)
    delivery = Delivery(channel, breaker, records, runtime.metrics.delivery, runtime.clock, runtime.random)
    return runtime.consumer(queue, Notification, delivery, breaker.open_for, TIME_LIMIT_SECONDS)
